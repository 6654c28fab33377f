"""`unnoise encode`: the latents of a data set, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import DataProgress, StopSignals, say

if TYPE_CHECKING:
    from ..codecs.autoencoder import AutoencoderCodec
    from ..data.base import DataSource

WHAT = "A recipe whose codec is an autoencoder (a shipped one or a YAML file); or the folder of an autoencoder, or of its run."
OUT = "The folder for the latents; by default a place in the user's cache, where training finds them by itself."
DATA = "The data: a folder of images, Parquet, shards, a URL, NPY/NPZ or CSV; a recipe knows it already, or takes this instead."


def encode(
    what: Annotated[str, typer.Argument(help=WHAT)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options of the recipe, such as `codec.path=runs/ae`.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help=OUT)] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Encode mirror images too; a recipe says so by data.flips.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where: auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Encodes a data set with an autoencoder, so that training on its latents need not do it at every step.

    - `unnoise encode cifar10-latent --data cifar10/train-*.parquet`

    - `unnoise encode runs/cifar10-autoencoder --data ~/Pictures/cats -o cats-latents`, then train with
      `codec.latents=cats-latents`

    The same command goes on where it was stopped, or killed.
    """
    from ..precision import find_device
    from ..recipes.latents import encode_into

    codec, source, mirrored = _asked(what, overrides or [], data)
    place = find_device(device)
    with StopSignals() as stop:
        found = encode_into(
            out, codec, source.load(DataProgress()), mirrored=True if flips else mirrored, device=place,
            progress=DataProgress(), stop=stop,
        )  # fmt: skip
    contents = found.contents
    if not found.whole:
        say("stopped: what is encoded stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))
    size = sum(file.stat().st_size for file in found.folder.glob("*.safetensors"))
    kept = " with mirror images" if contents.mirrored else ""
    typer.echo(
        f"latents    {contents.count:,} samples{kept}, {found.made:,} encoded now, {size / 1e6:,.1f} MB, in {found.folder}"
    )
    typer.echo(f"codec      hash {contents.codec[:12]}")
    if out is not None:
        typer.echo(f"to use     codec.latents={out}")


def _asked(what: str, overrides: list[str], data: str | None) -> tuple[AutoencoderCodec, DataSource, bool | None]:
    """The codec, the data, and whether mirror images are wanted, where somebody says so."""
    from ..codecs.autoencoder import AutoencoderCodec
    from ..errors import BadOption
    from ..recipes.codec_folder import load_codec, settled_codec
    from ..recipes.recipe import load_recipe, read_values, with_data
    from ..recipes.run_data import source_like

    if Path(what).is_dir():
        if overrides or data is None:
            raise BadOption(
                f"{what} is an autoencoder's folder: give --data, and no options; a recipe knows its own data"
            )
        return load_codec(what), source_like(data, None), None
    values = read_values(what)
    recipe = load_recipe(values if data is None else with_data(values, data), overrides)
    codec = None if recipe.codec is None else settled_codec(recipe.codec)
    if not isinstance(codec, AutoencoderCodec):
        raise BadOption(
            f"{what}: expected a recipe whose codec is an autoencoder: add codec.name=autoencoder codec.path=DIR"
        )
    return codec, recipe.data, None
