"""`unnoise compare` and `unnoise grid`: models side by side, and one model over its settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import DATA, FEATURES, METRICS, TRAIN, asked, command, names
from .progress import DataProgress, StopSignals, say


def compare(
    what: Annotated[
        list[str],
        typer.Argument(help="Models or folders; `PATH@steps=5,guidance=2` is a model sampled in another way."),
    ],
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    train: Annotated[str | None, typer.Option(help=TRAIN)] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", help="Samples of each; as `unnoise evaluate` by default.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help=METRICS)] = None,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    size: Annotated[int, typer.Option(help="Side that pictures of all sides are brought to; 0 leaves them.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the noise, and of what a metric draws.")] = 0,
    memorisation: Annotated[bool, typer.Option(help="Whether to look for copies of the training data.")] = True,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for the comparison.")] = Path("comparison"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Puts models, or settings of one model, side by side, and says whether a difference is more than chance.

    - `unnoise compare runs/a runs/b --data real/`

    - `unnoise compare runs/digits runs/digits@steps=5 runs/digits@guidance=4 -n 1000`

    Each is judged as by `unnoise evaluate`, and kept where that keeps it; what was made before is not made again.
    """
    from ..recipes.judging import words
    from ..recipes.judging.compare import compare as run
    from ..recipes.judging.compare import table

    settings = _settings(metrics, features, seed, memorisation=memorisation)
    with StopSignals() as stop:
        found = run(
            what, data=data, train=train, n=n, settings=settings, size=size, seed=seed, out=out, progress=DataProgress(),
            stop=stop, command=command(),
        )  # fmt: skip
    if found is None:
        _stopped(stop)
        return
    if as_json:
        typer.echo((found.folder / "comparison.json").read_text())
        return
    for line in words.aligned(table(found)):
        typer.echo(line)
    for note in dict.fromkeys(note for one in found.judged for note in one.result.notes):
        say(f"note: {note}")
    typer.echo(f"page  {found.folder / 'index.html'}")


def grid(
    model: Annotated[Path, typer.Argument(help="A model folder, or the run folder around it.")],
    x: Annotated[str, typer.Option(help="The setting across, such as `steps=5,10,20,50`.")] = "steps=5,10,20,50",
    y: Annotated[str | None, typer.Option(help="The setting down, such as `guidance=1,2,4,8`.")] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", help="Samples of each pair; 256 of pictures, 500 of points.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help=METRICS)] = None,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Where it is not one of the two: the model's own by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Likewise.")] = None,
    label: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise: the same in every cell.")] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder; `grid` beside the model by default.")
    ] = None,
) -> None:
    """Samples a model over two of its settings: a picture of every pair, and a map of every number.

    - `unnoise grid runs/digits --x steps=5,10,20,50 --y guidance=1,2,4,8`

    - `unnoise grid runs/spiral --x sampler=ddim,dpmpp_2m,heun --y steps=5,10,20 -n 1000`

    Settings: steps, guidance, embedded_guidance, sampler, grid, label, prompt, seed.
    """
    from ..model import Model
    from ..options import build
    from ..recipes.judging.subject import Request
    from ..recipes.judging.sweep import Axis, sweep

    axes = Axis.parse(x), None if y is None else Axis.parse(y)
    request = build(Request, asked(sampler=sampler, steps=steps, guidance=guidance, label=label, seed=seed))
    settings = None if metrics is None and features is None else _settings(metrics, features, seed)
    loaded = Model.load(model)
    for note in loaded.notes:
        say(f"note: {note}")
    with StopSignals() as stop:
        made = sweep(
            loaded, *axes, request=request, settings=settings, data=data, n=n, out=out, progress=DataProgress(), stop=stop,
            command=command(),
        )  # fmt: skip
    if made is None:
        _stopped(stop)
        return
    _tell(made)


def _tell(made: Any) -> None:
    from ..recipes.judging import words

    rows = [""] if made.y is None else [f"{made.y.name} {value}" for value in made.y.values]
    columns = [f"{made.x.name} {value}" for value in made.x.values]
    for name in made.cells[0][0]:
        cells = [[_cell(cell[name]) for cell in row] for row in made.cells]
        for line in words.aligned(
            [[words.title(name), *columns], *([row, *c] for row, c in zip(rows, cells, strict=True))]
        ):
            typer.echo(line)
        typer.echo("")
    for path in made.files:
        typer.echo(path)


def _cell(estimate: Any) -> str:
    from ..recipes.judging import words

    return f"{words.number(estimate.value)} ± {words.number((estimate.high - estimate.low) / 2)}"


def _settings(metrics: str | None, features: str | None, seed: int, **more: Any) -> Any:
    from ..options import build
    from ..recipes.judging.plan import EvaluationSettings

    return build(EvaluationSettings, {**asked(metrics=names(metrics), features=features), "seed": seed, **more})


def _stopped(stop: StopSignals) -> None:
    if stop():
        say("stopped: what is done stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))
