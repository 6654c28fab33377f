"""How well CLIP finds what belongs together, on data that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.base import Dataset, Progress
from ..errors import BadOption, DataError
from ..evaluation.adherence import Share
from ..evaluation.retrieval import Found, retrieval, zero_shot
from ..training.captions import lines
from .clip import ClipRecipe
from .clip_folder import TrainedClip
from .recipe import load_any_recipe, read_values, with_data
from .run_data import source_like
from .towers import Towers, open_towers, read_in_part


@dataclass(frozen=True)
class ClipJudged:
    """What was found.

    Args:
        captions: How pictures find their captions.
        pictures: How captions find their pictures.
        labels: The share of pictures whose label is read off by its name; None without labels.
        chance: What guessing a label would find.
        notes: What a person should know.
    """

    captions: Found
    pictures: Found
    labels: Share | None = None
    chance: float = 0.0
    notes: Sequence[str] = ()

    def lines(self) -> list[tuple[str, str]]:
        """What was found, each with a name."""
        told = [("picture -> caption", _told(self.captions)), ("caption -> picture", _told(self.pictures))]
        if self.labels is not None:
            told.append(("picture -> label", f"{_share(self.labels)} right, chance {self.chance:.1%}"))
        return told


def judge_clip(
    path: str | Path, data: str | None = None, among: int = 100, template: str = "{}", progress: Progress | None = None
) -> ClipJudged:
    """Judges CLIP on captioned pictures.

    Args:
        path: Its run or folder, or that of a CLIP that others trained.
        data: Where the pictures are; None for those that the run held out.
        among: Captions to choose from.
        template: What a label is called, with {} for its name.
        progress: Told while data is read.

    Raises:
        ModelFolderError: There is no CLIP.
        DataError: The pictures have no captions, or none were held out.
        BadOption: There are too few to choose from, or the template has no place for a name.
    """
    if "{}" not in template:
        raise BadOption(f"template: expected a place {{}} for the name of a label, got {template!r}")
    clip = open_towers(path)
    pictures, notes = _pictures(Path(path), data, clip, progress)
    if pictures.texts is None:
        raise DataError(f"{data or path}: the pictures have no captions to be found")
    captions = [lines(text)[0] for text in pictures.texts]
    first = {caption: i for i, caption in reversed(list(enumerate(captions)))}
    kept = torch.tensor(sorted(first.values()))
    if len(kept) < len(captions):
        notes.append(
            f"{len(captions) - len(kept)} pictures have the caption of another, and are left out of the search"
        )
    notes += read_in_part(clip, captions)
    seen, read = clip.look(pictures.x), clip.read(captions)
    found = retrieval(seen[kept], read[kept], among), retrieval(read[kept], seen[kept], among)
    names = pictures.spec.class_names
    if pictures.labels is None or not names:
        return ClipJudged(*found, notes=notes)
    named = clip.read([template.replace("{}", name) for name in names])
    return ClipJudged(*found, zero_shot(seen, named, pictures.labels), 1 / len(names), notes)


def _pictures(path: Path, data: str | None, clip: Towers, progress: Progress | None) -> tuple[Dataset, list[str]]:
    if not isinstance(clip, TrainedClip):
        if data is None:
            raise DataError(f"{path} was trained elsewhere: give captioned pictures with --data")
        return source_like(data, None).load(progress).part(), []
    recipe = next((each / "recipe.yaml" for each in (path, path.parent) if (each / "recipe.yaml").is_file()), None)
    if recipe is None:
        raise DataError(f"{path} stands in no run, so its data is not known: give some with --data")
    values = read_values(recipe)
    settled = load_any_recipe(values if data is None else with_data(values, data))
    assert isinstance(settled, ClipRecipe)
    whole = settled.data.load(progress)
    if tuple(whole.spec.shape) != tuple(clip.spec.shape):
        raise DataError(f"the towers look at pictures of shape {clip.spec.shape}, and these have {whole.spec.shape}")
    if data is not None:
        return whole.part(), []
    train, held_out = whole.split(settled.training.validation_share, settled.seed)
    if len(held_out):
        return held_out.part(), []
    return train.part(), [
        "nothing was held out: these are the pictures that it learned from (training.validation_share)"
    ]


def _told(found: Found) -> str:
    times = found.first.value / found.chance
    return (
        f"{_share(found.first)} first of {found.among} ({times:.0f} times chance), {found.among_five.value:.1%} among the first "
        f"five, mean place {found.rank:.1f}"
    )


def _share(share: Share) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
