"""`unnoise tune`: solver, order, times and weights for one model and one budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import bar, console, nothing_written, say

SHOWN = 12


def tune(
    model: Annotated[Path, typer.Argument(help="A model folder, or the run folder around it.")],
    steps: Annotated[int, typer.Option(help="Network calls a sample (guidance not counted).")] = 8,
    samples: Annotated[int, typer.Option(help="Noises to measure on: half choose, half judge.")] = 64,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own by default.")] = None,
    label: Annotated[str | None, typer.Option(help="One class; every class in turn by default.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Words; captions of the run's data by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noises, and of which captions.")] = 0,
    tolerance: Annotated[
        float, typer.Option(help="Of the converged samples, in units of the data's deviation.")
    ] = 5e-3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Search and tell, but write nothing.")] = False,
) -> None:
    """Searches the solver, its order, the times and the weights with which a model makes the most of a few network calls.

    It is measured against converged samples of the same model from the same noise, and written into the model's folder,
    with the table of all candidates and a plot of error against network calls.

    - `unnoise tune runs/digits --steps 8`

    - `unnoise sample runs/digits --sampler tuned --steps 8 -o digits.png`
    """
    from ..errors import BadOption, MissingExtra
    from ..model import Model
    from ..recipes.tune import check_budget, keep
    from ..recipes.tune import tune as search
    from ..shipped import comes_with_unnoise

    check_budget(steps, samples)
    if comes_with_unnoise(model):
        raise BadOption(
            f"tune writes into a model's folder, and not into that of `{model}`: keep a copy of it, with "
            f"unnoise.load({str(model)!r}).save('mine') in Python, and tune that"
        )
    loaded = Model.load(model)
    for note in loaded.notes:
        say(f"note: {note}")
    with nothing_written(), bar() as progress:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, facts="")
                if not console.is_terminal:
                    say(f"{what} ...")
            progress.update(tasks[what], completed=done, total=total)

        tuned = search(
            loaded,
            steps,
            samples=samples,
            guidance=guidance,
            label=label,
            prompt=prompt,
            seed=seed,
            tolerance=tolerance,
            progress=show,
        )
    best, table = tuned.found.tuned, tuned.found.table
    typer.echo(
        f"distance to the converged samples ({len(tuned.problem.start) // 2} held out, {tuned.problem.steps} steps)"
    )
    typer.echo(f"{'sampler':<38} {'grid':<12}{'calls':>5}  {'distance':>9}")
    for each in (best, *table[:SHOWN]):
        typer.echo(f"{each.label:<38} {each.grid:<12}{each.calls:>5}  {each.distance:>9.4g}")
    if len(table) > SHOWN:
        typer.echo(f"... and {len(table) - SHOWN} more")
    base = tuned.baseline
    if base is not None:
        ratio = best.distance / base.distance
        typer.echo(f"tuned / dpmpp_2m on its best fixed grid ({base.grid}): {ratio:.2f}")
    typer.echo("times: " + " ".join(f"{float(t):.4g}" for t in best.times))
    if not dry_run:
        try:
            for path in keep(tuned, model):
                say(f"wrote {path}")
        except MissingExtra as error:
            say(f"no plot: {error}")
        say(f"to sample: unnoise sample {model} --sampler tuned --steps {steps}")
