"""What training asks of each sample: its label, one of its captions, both, or nothing; a function of seed and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conditioning.text.conditioning import TextConditioning
from ..conditioning.text.network import TextNetwork
from ..data.augmentation import Augmentation
from ..data.base import Dataset
from ..denoisers.base import Condition, Denoiser
from ..objectives.base import Objective, drop_conditions
from ..objectives.mse import preconditioned
from ..randomness import address, uniform
from .caption_store import CaptionStore
from .regions import drawn_planes, whole_planes
from .stream import HERE

Positions = NDArray[np.int64]
_BY_TOKEN = "text", "context", "context_mask"


def lines(caption: str) -> list[str]:
    """The captions of a picture that has several, which stand on lines of their own."""
    return [line.strip() for line in caption.splitlines() if line.strip()] or [caption]


@dataclass(frozen=True)
class Captions:
    """How captions are drawn.

    Short captions beside long ones teach a model to read both, of which the long ones say more of a picture.

    Args:
        text: How the model understands words.
        first: Of pictures with several captions, how often the first one is taken; the others share the rest.
        apart: Share of the samples with a label and a caption that are trained with only one of them.
        length: Tokens of a caption in a batch; 0 for as many as the encoder reads.
        store: What an encoder that does not learn made of captions before.

    References:
        Improving Image Generation with Better Captions (Betker et al., 2023), Section 3.2, https://cdn.openai.com/papers/dall-e-3.pdf
    """

    text: TextConditioning
    first: float = 0.5
    apart: float = 0.1
    length: int = 0
    store: CaptionStore | None = None

    @property
    def values(self) -> int:
        """Numbers that a caption takes in a batch, where they are many."""
        return 0 if self.store is None else (self.length or self.text.length) * int(self.text.encoder.config.width)

    def drawn(self, texts: Sequence[str], seed: int, positions: Positions) -> list[str]:
        """One caption of each sample.

        Args:
            texts: All that each has.
            seed: Of the run.
            positions: Of the run, as many.
        """
        chance = uniform(address(seed, "caption"), positions)[:, 0]
        return [_one(lines(text), float(u), self.first) for text, u in zip(texts, chance, strict=True)]

    def condition(self, captions: Sequence[str], denoiser: Denoiser) -> Condition:
        """Captions as the network takes them: as numbers where its encoder learns, and else as what it makes of them.

        Args:
            captions: n of them.
            denoiser: Whose network reads them.
        """
        length = self.length or self.text.length
        if self.store is None:
            return {"text": self.text.ids(captions, length)}
        network = preconditioned(denoiser).network
        assert isinstance(network, TextNetwork)
        return self.store.condition(captions, network, self.text, length)

    def null(self, denoiser: Denoiser, batch: int) -> Condition:
        """What asks for nothing, with as many tokens as a caption has."""
        length, null = self.length or self.text.length, dict(denoiser.null_condition(batch, HERE))
        return {name: value[:, :length] if name in _BY_TOKEN else value for name, value in null.items()}

    def alone(self, cond: Condition, seed: int, positions: Positions, null: Condition) -> Condition:
        """The condition with some samples' label or words taken away, where they have both."""
        if self.apart == 0 or "label" not in cond:
            return cond
        chance = uniform(address(seed, "apart"), positions)[:, 0]
        unlabelled = torch.from_numpy(chance < self.apart / 2)
        wordless = torch.from_numpy((chance >= self.apart / 2) & (chance < self.apart))
        label = drop_conditions({"label": cond["label"]}, null, unlabelled) or {}
        words = drop_conditions({name: value for name, value in cond.items() if name != "label"}, null, wordless) or {}
        return {**words, **label}


def _one(captions: list[str], u: float, first: float) -> str:
    if len(captions) == 1 or u < first:
        return captions[0]
    rest = captions[1:]
    return rest[min(int((u - first) / (1 - first) * len(rest)), len(rest) - 1)]


def training_condition(
    data: Dataset,
    captions: Captions | None,
    denoiser: Denoiser,
    objective: Objective,
    seed: int,
    positions: Positions,
    augmentation: Augmentation | None = None,
) -> Condition | None:
    """What some samples of a run are trained to answer.

    Args:
        data: The samples.
        captions: How captions are drawn; None leaves them out.
        denoiser: Gives what asks for nothing.
        objective: Gives the share that asks for nothing.
        seed: Of the run.
        positions: Of the run, one for each sample.
        augmentation: What is done to the pictures, and so to what stands where in them; the data's own by default.
    """
    words = None if captions is None else captions.drawn(_texts(data), seed, positions)
    cond = _asked(data.labels, words, captions, denoiser)
    planes = drawn_planes(denoiser, data, augmentation or data.augmentation, seed, positions)
    if cond is None and not planes:
        return None
    batch = len(positions)
    null = denoiser.null_condition(batch, HERE) if captions is None else captions.null(denoiser, batch)
    dropped = uniform(address(seed, "dropout"), positions)[:, 0] < objective.condition_dropout
    if captions is not None and cond is not None:
        cond = captions.alone(cond, seed, positions, null)
    return dict(drop_conditions({**(cond or {}), **planes}, null, torch.from_numpy(dropped)) or {})


def whole_condition(data: Dataset, captions: Captions | None, denoiser: Denoiser) -> Condition | None:
    """All that some samples can be asked by: their labels, the first of their captions, and what stands where in them."""
    words = None if captions is None else [lines(text)[0] for text in _texts(data)]
    return {**(_asked(data.labels, words, captions, denoiser) or {}), **whole_planes(denoiser, data)} or None


def _asked(
    labels: Tensor | None, words: list[str] | None, captions: Captions | None, denoiser: Denoiser
) -> Condition | None:
    if labels is None and words is None:
        return None
    told: dict[str, Tensor] = {} if labels is None else {"label": labels}
    return told if captions is None or words is None else {**told, **captions.condition(words, denoiser)}


def _texts(data: Dataset) -> tuple[str, ...]:
    return data.texts if data.texts is not None else ("",) * len(data)
