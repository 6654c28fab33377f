"""`unnoise diagnose`: what a model's error is made of, and what to mend first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .evaluate import DATA, PROMPT, asked, command
from .places import DEVICE, PRECISION
from .progress import DataProgress, StopSignals, say


def diagnose(
    model: Annotated[Path, typer.Argument(help="A model folder, or the run folder around it.")],
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--number", help="Samples of each kind; 1,000 of pictures, 2,000 of points.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="A distance; fid, or energy of points, by default.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="See `unnoise list samplers`; the model's own by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; the model's own by default.")] = None,
    fine: Annotated[
        int | None, typer.Option(help="Steps that stand for endlessly many; ten times --steps by default.", min=1)
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own by default.")] = None,
    label: Annotated[str | None, typer.Option(help="`data`, `none` or one class; as `unnoise evaluate`.")] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT)] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            help="A run of kind clip, or the folder of a CLIP that others trained: do samples match their prompts?"
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Another model of the same data and process: where does this one err more than that?"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise, and of what the metric draws.")] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A folder for all of it; `diagnosis` beside the model by default."),
    ] = None,
) -> None:
    """Splits the distance between samples and data into codec, denoiser, guidance and steps, and says what to mend first.

    - `unnoise diagnose runs/digits`

    - `unnoise diagnose runs/cifar10 --data cifar10/test.parquet --steps 10 --guidance 3 -n 5000`

    Ctrl-C loses nothing but the samples in work: the same command goes on. For a run that failed, see `unnoise doctor`.
    """
    from ..recipes.judging import words
    from ..recipes.judging.parts import table
    from ..recipes.judging.split import error_parts

    with StopSignals() as stop:
        found = error_parts(
            model, data=data, n=n, metric=metric, fine=fine, out=out, seed=seed, device=device,
            precision=precision, progress=DataProgress(), stop=stop, command=command(), clip=clip, reference=reference,  # type: ignore[arg-type]
            **asked(sampler=sampler, steps=steps, guidance=guidance, label=label, prompt=prompt),
        )  # fmt: skip
    if found is None:
        say("stopped: what is done stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))
    for line in words.aligned(table(found)):
        typer.echo(line)
    for name, line in found.told:
        typer.echo(f"{name}: {line}")
    typer.echo(found.sentence)
    typer.echo(f"page  {found.folder / 'index.html'}")
