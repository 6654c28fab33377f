"""Two towers that say whether pictures and texts belong together: CLIP as it was trained here, or as others published it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ..conditioning.text.base import TextEncoder
from ..conditioning.text.conditioning import TextConditioning
from ..conditioning.text.folder import read_encoder
from ..conditioning.text.network import PADDING
from ..data.base import Dataset, Spec
from ..errors import DataError
from ..evaluation.features.base import Extractor
from ..evaluation.features.clip import ClipFeatures
from .clip_folder import AT_ONCE, load_clip


class Towers(Protocol):
    """What puts pictures and texts into one space, where what belongs together lies together."""

    @property
    def text(self) -> TextConditioning:
        """How texts become tokens."""

    def look(self, pictures: Tensor) -> Tensor:
        """Pictures, uint8 of shape (n, C, H, W), as points of length 1, shape (n, dim)."""

    def read(self, texts: Sequence[str]) -> Tensor:
        """Texts as points of the same space, of length 1, shape (n, dim)."""


@dataclass(frozen=True)
class PublishedClip:
    """CLIP from a folder of Hugging Face's layout, such as that of openai/clip-vit-base-patch32.

    Args:
        extractor: The tower that looks.
        encoder: The tower that reads.
        text: How texts become its tokens.
    """

    extractor: Extractor
    encoder: TextEncoder
    text: TextConditioning

    def look(self, pictures: Tensor) -> Tensor:
        """See `Towers.look`."""
        return torch.cat([self.extractor(part) for part in pictures.split(AT_ONCE)]).float()

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """See `Towers.read`; what is longer than the tower reads is cut."""
        return torch.cat([self._read(part) for part in self.text.ids(texts).split(AT_ONCE)])

    def _read(self, ids: Tensor) -> Tensor:
        mask = ids != PADDING
        states = self.encoder(ids.masked_fill(~mask, self.text.tokenizer.pad_id), mask)
        return nn.functional.normalize(self.encoder.pooled(states, mask), dim=1)


def read_in_part(clip: Towers, texts: Sequence[str], kind: str = "captions") -> list[str]:
    """A line for a person where texts are longer than what CLIP reads of them.

    Args:
        clip: Two towers.
        texts: That they are to read.
        kind: What these are called.
    """
    cut = clip.text.too_long(texts, "CLIP")
    remedy = f"shorten such {kind}, or take a CLIP that reads more"
    return [f"{kind}: {cut}, and what comes after is not read: {remedy}"] if cut else []


def is_published(path: str | Path) -> bool:
    """Whether a folder holds a model in Hugging Face's layout."""
    return (Path(path).expanduser() / "config.json").is_file()


def open_towers(path: str | Path) -> Towers:
    """The towers in a folder: a run of kind clip, its model, or a CLIP that others trained.

    Args:
        path: A run, or a folder with config.json, model.safetensors and tokenizer.json.

    Raises:
        ModelFolderError: There is no CLIP.
        DataError: It is damaged, or one tower of it is missing.
    """
    return published_clip(path) if is_published(path) else load_clip(path)


def published_clip(path: str | Path) -> PublishedClip:
    """CLIP from a folder of Hugging Face's layout.

    Raises:
        DataError: It is another model, it is damaged, or it has no projections into a common space.
    """
    found = read_encoder(path)
    if found.encoder.name != "clip" or not found.encoder.config.projection:
        raise DataError(
            f"{path} holds no CLIP with both projections: give the whole model, such as openai/clip-vit-base-patch32"
        )
    nothing = Dataset(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), Spec("image", (3, 8, 8)))
    looks = ClipFeatures(path=str(path)).prepare(nothing)
    if looks.dim != found.encoder.config.projection:
        raise DataError(
            f"{path}: pictures are projected to {looks.dim} numbers and texts to {found.encoder.config.projection}"
        )
    text = TextConditioning(found.encoder, found.tokenizer, learned=False, pretrained=found.weights)
    return PublishedClip(looks, text.build().eval(), text)
