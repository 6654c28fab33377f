"""`unnoise ema`: the averages of a run, and models of any length made of its snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import bar, say

if TYPE_CHECKING:
    from ..recipes.averaging import RunAverages, Swept

COARSE = 0.05
"""An error of a profile above which a person is told that snapshots are too few."""


def ema(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    length: Annotated[
        float | None, typer.Option(help="Make the power average of this length, a share of the run: 0.01 to 0.25.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Make the model of an average that the run kept, such as exponential-0.999.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Look for the length with the lowest validation loss.")
    ] = False,
    lengths: Annotated[str | None, typer.Option(help="Of the sweep, such as `0.02,0.05,0.1`.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The model folder, or the picture of a sweep; by default in RUN/averages."),
    ] = None,
) -> None:
    """The moving averages of a run's weights: lists them, or makes the model of another length after training.

    A run keeps what is needed for that if it is trained with training.snapshots.every=N.

    - `unnoise train digits training.snapshots.every=50`

    - `unnoise ema runs/digits`

    - `unnoise ema runs/digits --sweep`

    - `unnoise ema runs/digits --length 0.08 -o digits-0.08`
    """
    from ..errors import BadOption
    from ..recipes.averaging import RunAverages
    from ..training.averages import PowerAverage

    if sum((length is not None, name is not None, sweep)) > 1:
        raise BadOption("--length, --name and --sweep are three questions: ask one at a time")
    found = RunAverages(run)
    place = run / "averages"
    if sweep:
        _sweep(found, lengths, out or place / "sweep.png")
    elif length is not None:
        made = found.of_length(length)
        typer.echo(made.model.save(out or place / PowerAverage(length).name))
        say(f"its profile is off by {made.error:.2%}, at step {made.model.trained['steps']:,}")
        if made.error > COARSE:
            say(
                "note: that is much: more snapshots (training.snapshots.every), or a length nearer to theirs, is better"
            )
    elif name is not None:
        typer.echo(found.named(name).save(out or place / name))
    else:
        _list(found)


def _list(found: RunAverages) -> None:
    for i, name in enumerate(found.names):
        typer.echo(f"{name:<24}{'the model that samples' if i == 0 else 'to make its model: --name ' + name}")
    if not found.snapshots:
        typer.echo(
            "snapshots               none: lengths cannot be chosen any more (training.snapshots.every=N keeps them)"
        )
        return
    lengths = ", ".join(f"{each:g}" for each in found.recipe.training.snapshots.lengths)
    size = sum(path.stat().st_size for path in found.snapshots)
    last = int(found.snapshots[-1].stem)
    typer.echo(
        f"{'snapshots':<24}{len(found.snapshots):,} of lengths {lengths}, to step {last:,}, {size / 1e6:,.3g} MB: "
        "--length L, or --sweep"
    )
    for length in (0.02, 0.05, 0.1, 0.15, 0.2):
        typer.echo(f"{'  length ' + format(length, 'g'):<24}profile off by {found.fit(length).error:.2%}")


def _sweep(found: RunAverages, text: str | None, out: Path) -> None:
    from ..errors import MissingExtra
    from ..recipes.averaging import LENGTHS, best_of, draw_sweep
    from .draw import PICTURES, _check, _numbers

    _check(out, PICTURES)
    asked = LENGTHS if text is None else _numbers("lengths", text)
    with bar() as progress:
        task = progress.add_task("averages", total=len(asked), facts="")
        swept = found.sweep(asked, lambda done, _: progress.update(task, completed=done))
    best = best_of(swept)
    typer.echo(f"{'length':<10}{'validation loss':<18}profile off by")
    for each in swept:
        typer.echo(f"{each.length:<10g}{each.loss:<18.6g}{each.error:.2%}{_mark(each, best)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_sweep(swept, f"averages of {found.folder.name}").save(out)
        say(f"wrote {out}")
    except MissingExtra as error:
        say(f"no picture: {error}")
    say(f"to make the best: unnoise ema {found.folder} --length {best.length:g}")


def _mark(each: Swept, best: Swept) -> str:
    return "   <- best" if each is best else ""
