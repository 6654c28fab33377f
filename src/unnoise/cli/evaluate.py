"""`unnoise evaluate`: how good a model or a folder of samples is, how sure that is, and whether it was copied."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .places import ADDRESS, DEVICE, ON, PRECISION, WORKERS, place_spec
from .progress import DataProgress, StopSignals, say
from .sample import EMBEDDED

if TYPE_CHECKING:
    from ..recipes.judging.run import Judged

WHAT = "A model, a run folder, or samples: a folder of pictures, Parquet, NPY/NPZ or CSV."
DATA = "Real data: a folder of images, Parquet, NPY/NPZ, CSV, or a shipped data set's name; by default what the run learned."
TRAIN = "The data that must not be copied; by default what the run learned, else --data."
METRICS = "Names with commas between, see `unnoise list metrics`; those that suit the data by default."
FEATURES = "What samples are compared by, see `unnoise list features`; `own` for pictures by default."

PROMPT = "`data` asks for captions of the real data, the default of models that know words; `none`; or words for all."


def evaluate(
    what: Annotated[str, typer.Argument(help=WHAT)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Options of the parts, such as `features.path=inception.pth sampler.eta=1`."),
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    train: Annotated[str | None, typer.Option(help=TRAIN)] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", "--number", help="How many samples; 1,000 of pictures, 2,000 of points, all of a folder."),
    ] = None,
    metrics: Annotated[str | None, typer.Option(help=METRICS)] = None,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    sampler: Annotated[
        str | None, typer.Option(help="See `unnoise list samplers`; the model's own by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; the model's own by default.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="At which times: see `unnoise list grids`; or the times themselves: `1,0.5,0`.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale: 1 is off, 0 unconditional.")] = None,
    embedded_guidance: Annotated[float | None, typer.Option(help=EMBEDDED)] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="`data` asks for labels as often as the real data has them, the default; `none`; or one class."
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT)] = None,
    size: Annotated[int, typer.Option(help="Side that pictures of both sides are brought to; 0 leaves them.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the noise, and of what a metric draws.")] = 0,
    memorisation: Annotated[bool, typer.Option(help="Whether to look for copies of the training data.")] = True,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
    on: Annotated[str, typer.Option(help=ON)] = "here",
    workers: Annotated[int | None, typer.Option(help=WORKERS)] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS)] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A folder for all of it; `evaluation/...` beside the model by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judges a model, or a folder of samples, by real data: numbers with 95 % intervals, copies, and a page of it all.

    - `unnoise evaluate runs/digits`

    - `unnoise evaluate runs/cifar10 --data cifar10/test.parquet -n 10000 --metrics fid,kid`

    - `unnoise evaluate made/ --data real/ --features inception features.path=inception.pth`

    - `torchrun --nproc-per-node 2 -m unnoise evaluate runs/digits -n 5000`

    - `unnoise evaluate runs/digits -n 50000 --on ray`

    Ctrl-C loses nothing but the samples in work: the same command goes on.
    """
    from ..recipes.judging.run import evaluate as run

    parts = _parts(overrides, sampler, features)
    with StopSignals() as stop:
        judged = run(
            what, data=data, train=train, n=n, metrics=names(metrics), features=parts["features"],
            memorisation=memorisation, size=size, seed=seed, out=out, progress=DataProgress(), stop=stop,
            place=place_spec(on, workers, address, device), device=device,
            precision=precision, command=command(),  # type: ignore[arg-type]
            **asked(sampler=parts["sampler"], steps=steps, grid=grid, guidance=guidance, label=label, prompt=prompt),
            **asked(embedded_guidance=embedded_guidance),
        )  # fmt: skip
    if judged is None:
        _stopped(stop)
    elif as_json:
        typer.echo(json.dumps(judged.result.values, indent=2))
    else:
        _tell(judged)


def _stopped(stop: StopSignals) -> None:
    """Tells of a stop, where there was one: processes of torchrun but the first end here too."""
    if stop():
        say("stopped: what is done stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))


def names(text: str | None) -> tuple[str, ...] | None:
    """The names in a list with commas between; None where none is given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def asked(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def command(arguments: Sequence[str] | None = None) -> str:
    """The command as a person typed it."""
    return shlex.join(["unnoise", *(sys.argv[1:] if arguments is None else arguments)])


def _parts(overrides: list[str] | None, sampler: str | None, features: str | None) -> dict[str, Any]:
    """The specs of sampler and features, with options such as features.path=FILE set."""
    from ..errors import BadOption
    from ..recipes.recipe import override, parse_override

    values: dict[str, Any] = {"sampler": sampler, "features": features}
    for text in overrides or ():
        path, value = parse_override(text)
        if path[0] not in values or len(path) < 2:
            raise BadOption(f"{text}: expected sampler.OPTION=value or features.OPTION=value")
        if values[path[0]] is None:
            raise BadOption(f"{text}: say which with --{path[0]}")
        override(values, path, value)
    return values


def _tell(judged: Judged) -> None:
    from ..recipes.judging import words
    from ..recipes.judging.copying import brief

    result = judged.result
    for line in words.aligned([words.HEADERS, *words.rows(result.estimates, result.baseline)]):
        typer.echo(line)
    features = result.values["features"]
    typer.echo(f"\nfeatures   {features.get('name')}, {features['dim']} numbers a sample, hash {features['hash'][:12]}")
    if result.memorisation is not None:
        typer.echo(f"copies     {brief(result.memorisation)}")
    notes = [note for each in result.estimates.values() for note in each.notes] + list(result.notes)
    for note in dict.fromkeys(notes):
        say(f"note: {note}")
    typer.echo(f"page       {judged.page}")
