"""`unnoise retrieve`: whether captions are found for pictures, by CLIP or by the model that is asked with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import asked
from .progress import DataProgress, say


def retrieve(
    model: Annotated[
        Path,
        typer.Argument(
            help="A run of kind clip, the folder of a CLIP that others trained, or a model that knows words."
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Captioned pictures; by default those that the run held out.")
    ] = None,
    among: Annotated[int, typer.Option(help="How many captions there are to choose from.")] = 100,
    template: Annotated[
        str, typer.Option(help="What a label is called where labels are read off; {} is its name.")
    ] = "{}",
    clip: Annotated[
        Path | None,
        typer.Option(
            help="Of other models: a run of kind clip, or the folder of a CLIP that others trained: do samples match their prompts?"
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Samples that it looks at.")] = 200,
    guidance: Annotated[float | None, typer.Option(help="Of the samples; the model's own by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    seed: Annotated[int, typer.Option(help="Of their noise.")] = 0,
) -> None:
    """Judges what knows words: how often a picture finds its caption, and whether samples match their prompts.

    CLIP is judged by what its towers say; another model by under which caption it makes the least error about a picture, and
    with --clip by the CLIP score of its samples and the place of their prompts.

    - `unnoise retrieve runs/emoji-clip`

    - `unnoise retrieve runs/emoji --clip runs/emoji-clip -n 500 --guidance 3`

    - `unnoise retrieve ~/models/clip-vit-base-patch32 --data pictures.parquet`

    - `unnoise retrieve runs/emoji-clip --data more.parquet --among 50 --template "a picture of {}"`
    """
    from ..errors import ModelFolderError
    from ..model_folder import model_place, read_description
    from ..recipes.retrieving import judge_clip
    from ..recipes.towers import is_published
    from ..shipped import folder_of

    if not folder_of(model).exists():
        raise ModelFolderError(f"there is no model at {model}: give a run of kind clip, or a model that knows words")
    if not is_published(model) and read_description(model_place(model)).get("kind") is None:
        _words(model, data, clip, n, seed, guidance=guidance, steps=steps)
        return
    found = judge_clip(model, data, among, template, DataProgress())
    for note in found.notes:
        say(f"note: {note}")
    for name, line in found.lines():
        typer.echo(f"{name:<24}{line}")


def _words(model: Path, data: str | None, clip: Path | None, n: int, seed: int, **how: Any) -> None:
    from ..recipes.judging.caption_finding import judge_words

    given = asked(**how)
    found = judge_words(model, clip=clip, data=data, n=n, seed=seed, progress=DataProgress(), **given)
    for note in found.notes:
        say(f"note: {note}")
    for name, line in found.lines():
        typer.echo(f"{name:<32}{line}")
    if not found.heard:
        say(f"note: {found.remedy}")
