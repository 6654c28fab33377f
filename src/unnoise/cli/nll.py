"""`unnoise nll`: how likely data is under a model."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import DataProgress, StopSignals, bar, say

if TYPE_CHECKING:
    from ..recipes.nll import Evaluation, NLLSettings


def nll(
    model: Annotated[Path, typer.Argument(help="A model folder, or the run folder around it.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of images, Parquet, NPY/NPZ, CSV, or a shipped data set's name; by default what the run held out, "
            "else what it was trained on."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", "--number", help="How many samples; 100 of pictures and 1000 of points by default."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Given a class: `own` for each sample's own, or one by name; unconditional by default."),
    ] = None,
    unconditional: Annotated[
        bool, typer.Option("--unconditional", help="Of no class in particular, which is the default.")
    ] = False,
    bound: Annotated[
        bool, typer.Option("--bound", help="The variational bound too; needs a discrete schedule.")
    ] = False,
    levels: Annotated[
        int | None, typer.Option(help="Levels of the bound drawn for each sample; all by default.")
    ] = None,
    probes: Annotated[
        int | None,
        typer.Option(help="Directions of the divergence; 0 is exact. By default 0 up to 16 numbers, else 4."),
    ] = None,
    rtol: Annotated[float, typer.Option(help="Largest error of a step, relative.")] = 1e-4,
    atol: Annotated[float, typer.Option(help="Largest error of a step, absolute.")] = 1e-4,
    prior: Annotated[
        str, typer.Option(help="At t = 1: `data` (its mean and covariance, noised) or `start` (where samples start).")
    ] = "data",
    batch_size: Annotated[int | None, typer.Option(help="Samples at a time; chosen by their size by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of samples, their dequantisation and the probes.")] = 0,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="One line for each sample; the same command again goes on with it.")
    ] = Path("nll.jsonl"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tells how likely data is under a model: nats and bits a number, with their 95 % intervals.

    - `unnoise nll runs/spiral -n 500`

    - `unnoise nll runs/digits --label own -o digits.jsonl`

    - `unnoise nll runs/digits --data mine.npz --probes 16 --rtol 1e-5 --atol 1e-5 --json`

    Ctrl-C loses nothing but the batch in work: the same command goes on.
    """
    from ..errors import BadOption
    from ..model import Model
    from ..recipes.nll import Evaluation
    from ..recipes.nll_data import choose_data, default_number

    if unconditional and label is not None:
        raise BadOption("label: leave it out with --unconditional")
    if n is not None and n < 1:
        raise BadOption(f"n: must be at least 1, got {n}")
    settings = _settings(
        out, label=label, rtol=rtol, atol=atol, probes=probes, prior=prior, bound=bound, levels=levels, seed=seed
    )
    loaded = Model.load(model)
    chosen = choose_data(loaded, data, DataProgress())
    for note in (*loaded.notes, *chosen.notes):
        say(f"note: {note}")
    evaluation = Evaluation(loaded, chosen.data, settings, out)
    count = default_number(chosen.data) if n is None else min(n, len(chosen.data))
    _evaluate(evaluation, count, batch_size, out)
    summary = evaluation.summary(count)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _tell(summary, out)


def _settings(out: Path, **values: Any) -> NLLSettings:
    from ..errors import BadOption
    from ..options import build
    from ..recipes.nll import NLLSettings

    if values["levels"] is not None and not values["bound"]:
        raise BadOption("levels: only the bound has them: add --bound")
    if out.suffix.lower() not in (".jsonl", ".json"):
        raise BadOption(f"cannot write {out.name}: the name must end in .jsonl")
    return build(NLLSettings, values)


def _evaluate(evaluation: Evaluation, count: int, batch_size: int | None, out: Path) -> None:
    if evaluation.rows:
        say(f"going on: {len(evaluation.rows):,} samples stand in {out} already")
    with StopSignals() as stop:
        with bar() as progress:
            task = progress.add_task("likelihood", total=count, facts="")
            finished = evaluation.run(
                count, batch_size, stop=stop,
                progress=lambda done, calls: progress.update(task, completed=done, facts=f"  {calls} calls in this batch"),
            )  # fmt: skip
        if not finished:
            say(f"stopped: {len(evaluation.rows):,} samples stand in {out}; the same command goes on from there")
            sys.exit(128 + (stop.received or 0))


def _tell(summary: dict[str, Any], out: Path) -> None:
    typer.echo(f"{'':<14}{'nats':>11}{'95 % interval':>25}{'bits/dim':>11}{'95 % interval':>21}")
    names = {
        "nll": "nll", "bound": "bound", "bound_prior": "  L_T, prior", "bound_steps": "  L_t, steps",
        "bound_decoder": "  L_0, decoder",
    }  # fmt: skip
    for key, name in names.items():
        if key in summary:
            m = summary[key]
            nats, bits = _interval(m["low"], m["high"], 4), _interval(m["bits_low"], m["bits_high"], 4)
            typer.echo(f"{name:<14}{m['nats']:>11.4f}{nats:>25}{m['bits_per_dim']:>11.4f}{bits:>21}")
    if "bound_levels" in summary:
        typer.echo(f"L_t by t      {_by_stretches(summary['bound_levels'][1:-1])}")
    typer.echo(f"samples       {summary['n']:,} of {summary['of']:,}, written to {out}")
    typer.echo(f"in            {summary['unit']}")
    typer.echo(f"divergence    {summary['divergence']}; {summary['evaluations']:.0f} network evaluations a sample")
    typer.echo(f"prior         {summary['prior']}")


def _by_stretches(terms: list[float], most: int = 5) -> str:
    """The sums of the terms over at most so many stretches of their levels."""
    ends = [round(len(terms) * i / most) for i in range(most + 1)]
    parts = [(low, high) for low, high in pairwise(ends) if low < high]
    return ", ".join(f"{low + 1}-{high}: {sum(terms[low:high]):.4g}" for low, high in parts)


def _interval(low: float | None, high: float | None, digits: int) -> str:
    return "unknown" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
