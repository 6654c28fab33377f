"""`unnoise retrieve`: whether CLIP finds captions for pictures, and labels by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import DataProgress, say


def retrieve(
    model: Annotated[Path, typer.Argument(help="A run of kind clip, or its model folder.")],
    data: Annotated[
        str | None, typer.Option(help="Captioned pictures; by default those that the run held out.")
    ] = None,
    among: Annotated[int, typer.Option(help="How many captions there are to choose from.")] = 100,
    template: Annotated[
        str, typer.Option(help="What a label is called where labels are read off; {} is its name.")
    ] = "{}",
) -> None:
    """Judges CLIP: how often a picture finds its caption, a caption its picture, and a label its name.

    - `unnoise retrieve runs/emoji-clip`

    - `unnoise retrieve runs/emoji-clip --data more.parquet --among 50 --template "a picture of {}"`
    """
    from ..recipes.retrieving import judge_clip

    found = judge_clip(model, data, among, template, DataProgress())
    for note in found.notes:
        say(f"note: {note}")
    for name, line in found.lines():
        typer.echo(f"{name:<24}{line}")
