"""CLIP on disk: a folder like a model's, with two towers and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.identity import IdentityCodec
from ..conditioning.clip import Clip, PictureTowerConfig
from ..conditioning.text.conditioning import TextConditioning, encoder_of
from ..data.base import Spec
from ..errors import ModelFolderError, ShapeError, UnnoiseError
from ..model_folder import described_parts, model_place, read_description, read_parts, write_folder
from ..options import build, plain

KIND = "clip"
AT_ONCE = 128


@dataclass
class TrainedClip:
    """Two towers that were trained to find each other.

    Args:
        clip: The towers.
        text: How texts become numbers.
        pictures: The options of the tower that reads pictures.
        spec: What one picture is.
        trained: How they came to be, as plain values.
        path: Where they were read from.
    """

    clip: Clip
    text: TextConditioning
    pictures: PictureTowerConfig
    spec: Spec
    trained: dict[str, Any] = field(default_factory=dict)
    path: str | None = None

    @classmethod
    def untrained(
        cls, text: TextConditioning, pictures: PictureTowerConfig, dim: int, spec: Spec, seed: int
    ) -> TrainedClip:
        """The towers before the first step, the same for one seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            clip = Clip(spec.shape, pictures, text.build(), text.tokenizer.pad_id, dim)
        clip.text.requires_grad_(text.learned)
        return cls(clip, text, pictures, spec)

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Tensor:
        """Pictures as points of the common space, of length 1.

        Args:
            pictures: In the units of the data, shape (n, C, H, W); sizes other than the data's are averaged alike.

        Returns:
            Shape (n, dim).

        Raises:
            ShapeError: They have other channels.
        """
        if pictures.ndim != len(self.spec.shape) + 1 or pictures.shape[1] != self.spec.shape[0]:
            told = f"(n, {', '.join(map(str, self.spec.shape))})"
            raise ShapeError(f"these towers look at pictures of shape {told}, got {tuple(pictures.shape)}")
        x = IdentityCodec.pixels().encode(pictures)
        return torch.cat([self.clip.eval().picture(part) for part in x.split(AT_ONCE)])

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Texts as points of the same space, of length 1: shape (n, dim)."""
        ids = self.text.ids(texts)
        return torch.cat([self.clip.eval().words(part) for part in ids.split(AT_ONCE)])

    def describe(self) -> dict[str, Any]:
        """Its description as plain values."""
        return {**self._values(), **described_parts(self._parts())}

    def save(self, path: str | Path) -> Path:
        """Writes its folder; what stands there is replaced at once and whole.

        Raises:
            OSError: The folder cannot be written; what stands there stays.
        """
        write_folder(Path(path), self._values(), parts=self._parts())
        return Path(path)

    def _values(self) -> dict[str, Any]:
        data = {"kind": self.spec.kind, "shape": list(self.spec.shape)}
        towers = {"text": self.text.describe(), "pictures": plain(self.pictures), "dim": self.clip.dim}
        return {"kind": KIND, "data": data, **towers, "trained": dict(self.trained)}

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        weights = self.clip.state_dict()
        encoder = {name.removeprefix("text."): value for name, value in weights.items() if name.startswith("text.")}
        rest = {name: value for name, value in weights.items() if not name.startswith("text.")}
        return {"clip": rest, "text": self.text.kept(encoder)}


def load_clip(path: str | Path) -> TrainedClip:
    """The towers in a folder: one that `unnoise train` made, or the run folder around it.

    Raises:
        ModelFolderError: There are none, or they are damaged.
    """
    folder = model_place(Path(path).expanduser())
    values = read_description(folder)
    if values.get("kind") != KIND:
        raise ModelFolderError(f"{path} holds no CLIP: give the folder of a run of kind {KIND}")
    parts = read_parts(folder, values)
    try:
        text = TextConditioning.of(values["text"], parts["text"])
        spec = Spec(values["data"]["kind"], tuple(values["data"]["shape"]))
        made = TrainedClip.untrained(
            text, build(PictureTowerConfig, values["pictures"], "pictures"), int(values["dim"]), spec, 0
        )
        encoder = {f"text.{name}": value for name, value in encoder_of(parts["text"]).items()}
        made.clip.load_state_dict({**parts["clip"], **encoder})
        made.trained, made.path = dict(values["trained"]), str(path)
    except (UnnoiseError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the CLIP at {path} cannot be built: {str(error).splitlines()[0]}") from None
    return made
