"""`unnoise adherence`: whether a model of coloured shapes does what prompts say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .evaluate import command, names
from .places import DEVICE, PRECISION
from .progress import DataProgress, StopSignals, say

if TYPE_CHECKING:
    from ..data.base import Dataset, DataSource
    from ..recipes.judging.following import Followed


N = TypeVar("N", int, float)


def adherence(
    what: Annotated[
        str, typer.Argument(help="A model of `shapes`, or pictures with captions: a folder, shards, a data set's name.")
    ],
    n: Annotated[int | None, typer.Option("-n", "--number", help="How many prompts; 500 by default.")] = None,
    guidance: Annotated[
        str | None, typer.Option(help="Scales with commas between; the model's own by default.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="See `unnoise list samplers`; the model's own by default.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Ask for combinations that training never shows: held_out; or for others: train.")
    ] = "held_out",
    objects: Annotated[
        int, typer.Option(help="In one picture, at most: 1 asks for one thing, 4 for all that there is.")
    ] = 4,
    prompts: Annotated[Path | None, typer.Option(help="A text file with a prompt in every line, instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts and of the noise.")] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder; `adherence` beside the model by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Counts how often pictures show what was asked for: colours, shapes, sizes, relations, numbers, and all of it.

    - `unnoise adherence runs/shapes`

    - `unnoise adherence runs/shapes --guidance 1,2,4,8 --steps 10,20 -n 200`

    - `unnoise adherence ready --objects 1`

    - `unnoise adherence shapes -n 1000` (the data itself, which says how right the program is that reads the pictures)

    Ctrl-C loses nothing but the pictures in work: the same command goes on.
    """
    from ..recipes.judging.following import follow, of_pictures, prompts_of
    from ..recipes.judging.subject import is_model

    if n is not None and n < 1:
        from ..errors import BadOption

        raise BadOption(f"n: must be at least 1, got {n}")
    if not 1 <= objects <= 4:
        from ..errors import BadOption

        raise BadOption(f"objects: must be from 1 to 4, got {objects}")
    with StopSignals() as stop:
        if is_model(what):
            from ..model import Model

            model = Model.load(what).on(device, precision)  # type: ignore[arg-type]
            for note in model.notes:
                say(f"note: {note}")
            asked = prompts_of(prompts, n, split, seed, objects)  # type: ignore[arg-type]
            found = follow(
                model, asked, guidance=_numbers("guidance", guidance, float, 0.0),
                steps=_numbers("steps", steps, int, 1), sampler=sampler, seed=seed, out=out, progress=DataProgress(), stop=stop,
            )  # fmt: skip
        else:
            found = of_pictures(_pictures(what, n, split, seed, objects), out or Path("adherence"))
    if found is None:
        say("stopped: what is done stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))
    _tell(found, Path(what).name, as_json)


def _numbers(name: str, text: str | None, kind: Callable[[str], N], low: N) -> tuple[N, ...]:
    from ..errors import BadOption

    try:
        values = tuple(kind(each) for each in names(text) or ())
    except ValueError:
        raise BadOption(f"{name}: expected numbers with commas between, got {text!r}") from None
    if any(not value >= low for value in values):
        raise BadOption(f"{name}: must be at least {low}, got {text}")
    return values


def _pictures(what: str, n: int | None, split: str, seed: int, objects: int) -> Dataset:
    import torch

    from ..data.base import datasets
    from ..data.open import source_of

    if what == "shapes" and not Path(what).exists():
        drawn = {"name": "shapes", "number": n or 500, "split": split, "seed": seed, "most_objects": objects}
        source: DataSource = datasets.build(drawn)
    else:
        source = datasets.build(what) if what in datasets and not Path(what).exists() else source_of(what)
    data = source.load(DataProgress()).part()
    return data if n is None or n >= len(data) else data.take(torch.arange(n))


def _tell(found: Followed, name: str, as_json: bool) -> None:
    from ..recipes.judging import words
    from ..recipes.judging.following_page import HEADERS, table, write_page

    page = write_page(found, name, command())
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
        return
    for line in words.aligned([HEADERS, *table(found)]):
        typer.echo(line)
    for note in dict.fromkeys(note for each in found.meters[found.best].values() for note in each.notes):
        say(f"note: {note}")
    typer.echo(f"page  {page}")
