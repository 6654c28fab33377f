"""`unnoise reconstruct`: how well an autoencoder gives pictures back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .progress import DataProgress

WHAT = "The folder of an autoencoder, its run folder, or a model that uses one."
DATA = (
    "Pictures to judge it by: a folder of images, Parquet, NPY/NPZ; by default what its run held out, or else learned."
)
FEATURES = "Whose layers the perceptual distance compares: see `unnoise list features`; by default as it was trained."


def reconstruct(
    what: Annotated[str, typer.Argument(help=WHAT)],
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Most pictures that are looked at.", min=1)] = 1000,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    perceptual: Annotated[bool, typer.Option(help="Whether to measure the perceptual distance too.")] = True,
    device: Annotated[str, typer.Option(help="Where: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The folder for it; `reconstruction` in that of the run by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judges an autoencoder: PSNR, SSIM and the distance between features, with 95 % intervals, and the worst pictures.

    Noise is added to the latents, too, as a diffusion model errs: where the PSNR falls fast, a larger loss.kl may help.

    - `unnoise reconstruct runs/cifar10-autoencoder`

    - `unnoise reconstruct runs/cifar10-autoencoder --data cifar10/test.parquet -n 10000`
    """
    from ..evaluation.features.base import extractors
    from ..precision import find_device
    from ..recipes.reconstruct import reconstruct as run

    source = None if features is None else extractors.build(features, "features")
    place = find_device(device)
    found = run(what, data, n=n, features=source, perceptual=perceptual, device=place, progress=DataProgress())
    folder = found.save(out or Path(what) / "reconstruction")
    if as_json:
        typer.echo(json.dumps(found.values(), indent=2))
        return
    for name, each in found.means.items():
        unit = " dB" if name.startswith("psnr") else ""
        typer.echo(f"{name:<23} {each.value:.4g}{unit}  ± {each.half_width:.2g}")
    shape = tuple(found.facts["latents"])
    typer.echo(f"latents                 of shape {shape}: {found.facts['values_to_one']:g} values of the data to one")
    seen = "that it did not learn from" if found.facts["held_out"] else "that it learned from"
    typer.echo(f"judged by               {found.facts['n']:,} pictures {seen}")
    typer.echo(f"worst                   {folder / 'worst.png'}")
