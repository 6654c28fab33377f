"""The recipe of CLIP: two towers that learn which caption belongs to which picture."""

from __future__ import annotations

from dataclasses import dataclass

from ..conditioning.clip import PictureTowerConfig
from ..conditioning.text.own import OwnTextConfig
from ..errors import BadOption
from ..options import option
from ..registry import Choice
from .any_recipe import AnyRecipe
from .words import TextSettings


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(AnyRecipe):
    """Everything that a training run of CLIP depends on."""

    kind = "clip"
    sections = "description", "seed", "data", "text", "pictures", "dim", "training", "machine", "tracking"

    text: TextSettings = option(
        TextSettings(encoder=Choice("transformer", OwnTextConfig(width=128, depth=2))),
        help="the tower that reads captions",
    )
    pictures: PictureTowerConfig = option(PictureTowerConfig(), help="the tower that reads pictures")
    dim: int = option(128, help="numbers of the common space", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.machine.micro_batch:
            raise BadOption("machine.micro_batch: every pair of a batch is told from all others: leave it 0")
        if self.training.batch_size < 2:
            raise BadOption("training.batch_size: a caption is told from the others of its batch: take at least 2")
