"""A run that makes CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..codecs.identity import IdentityCodec
from ..data.base import Progress
from ..errors import BadOption, IncompatibleParts
from ..training.contrast import ClipTrainee
from .clip import ClipRecipe
from .clip_folder import TrainedClip
from .marks import encoder_marks
from .words import ConditioningSettings, settled_words
from .work import Made, Work


class ClipWork(Work):
    """Two towers in the making.

    Args:
        recipe: What to make.
        progress: Told while data is read.

    Raises:
        DataError: The data cannot be read, or has no captions.
        IncompatibleParts: It holds no pictures.
        BadOption: The run is to be shared out over processes.
    """

    recipe: ClipRecipe
    shared = ()
    drawn = False

    def __init__(self, recipe: ClipRecipe, progress: Progress | None = None) -> None:
        if recipe.machine.parallel == "fsdp":
            raise BadOption("machine.parallel: the towers are whole on one process: leave it as it is")
        data = recipe.data.load(progress)
        data.check()
        if data.spec.kind != "image":
            raise IncompatibleParts(f"kind clip: the tower looks at pictures, and the data is {data.spec.kind}")
        self.recipe, self.skipped = recipe, data.skipped
        self.train, self.held_out = data.split(recipe.training.validation_share, recipe.seed)
        if len(self.train) == 0:
            self.train.check()
        where = str(getattr(recipe.data, "path", "the data"))
        words = settled_words(ConditioningSettings(recipe.text), self.train, where, section="text")
        assert words.text is not None
        assert words.captions is not None
        self.text, self.captions, self._notes = words.text, words.captions, words.notes
        self.marks = encoder_marks(words.text, "text")

    def _untrained(self) -> TrainedClip:
        return TrainedClip.untrained(
            self.text, self.recipe.pictures, self.recipe.dim, self.train.spec, self.recipe.seed
        )

    @property
    def notes(self) -> Sequence[str]:
        """See `Work.notes`."""
        return self._notes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See `Work.input_shape`."""
        return self.train.spec.shape

    def seen(self, x: Tensor) -> Tensor:
        """See `Work.seen`."""
        return IdentityCodec.pixels().encode(x)

    def trainee(self) -> ClipTrainee:
        """See `Work.trainee`."""
        recipe = self.recipe
        return ClipTrainee(
            self._untrained().clip, self.captions, self.train, self.held_out, recipe.seed, recipe.machine.workers
        )

    def made(self, weights: Mapping[str, Tensor], trained: Mapping[str, Any], path: str) -> TrainedClip:
        """See `Work.made`."""
        made = self._untrained()
        untouched = {} if self.text.pretrained is None or self.text.learned else self.text.pretrained
        made.clip.load_state_dict({**weights, **{f"text.{name}": value for name, value in untouched.items()}})
        made.trained, made.path = dict(trained), path
        return made

    def draw(self, made: Made, path: Path) -> None:
        """See `Work.draw`; there is no picture of it."""

    def summary(self) -> list[tuple[str, str]]:
        """See `Work.summary`."""
        clip = self._untrained().clip
        towers = [sum(p.numel() for p in tower.parameters()) for tower in (clip.pictures, clip.text)]
        return [
            (
                "towers",
                f"{towers[0]:,} parameters for pictures, {towers[1]:,} for texts, which meet in {clip.dim} numbers",
            )
        ]

    def goodbye(self, folder: Path) -> str:
        """See `Work.goodbye`."""
        return (
            f"the towers stand in {folder / 'model'}; to judge them: unnoise retrieve {folder}; to ask a diffusion model with "
            f"them: conditioning.text.path={folder}"
        )
