"""`unnoise pack`: many small files into a few large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import DataProgress


def pack(
    folder: Annotated[Path, typer.Argument(help="A folder of images; sub-folders are labels, text files captions.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the shards.")],
    size: Annotated[str, typer.Option(help="About how large a shard is.")] = "256MB",
    format: Annotated[str, typer.Option(help="`tar` (WebDataset) or `parquet` (Hugging Face).")] = "tar",
    seed: Annotated[int, typer.Option(help="Of the order in which the images are mixed.")] = 0,
) -> None:
    """Packs a folder of images into shards, mixed, for data that does not fit into memory or lies far away.

    - `unnoise pack ~/Pictures/cats -o shards --size 256MB`

    - then `unnoise train images --data shards`
    """
    from ..data.pack import bytes_of
    from ..data.pack import pack as pack_folder
    from ..errors import BadOption

    if format not in ("tar", "parquet"):
        raise BadOption(f"format: expected tar or parquet, got {format!r}")
    shards = pack_folder(
        folder, out, bytes_of(size), format, seed=seed, progress=DataProgress(),  # type: ignore[arg-type]
        note=lambda line: typer.echo(f"note: {line}", err=True),
    )  # fmt: skip
    total = sum(shard.stat().st_size for shard in shards)
    typer.echo(f"{len(shards):,} {'shard' if len(shards) == 1 else 'shards'}, {total / 1e6:,.1f} MB, in {out}")
