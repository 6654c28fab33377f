"""Two towers that are trained to find each other: CLIP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.identity import IdentityCodec
from ..conditioning.clip import Clip
from ..data.base import AnyDataset, Dataset
from ..errors import BadOption
from ..objectives.companion import Companion
from ..objectives.contrast import contrastive_losses
from ..objectives.examples import Draws, Prepared
from ..randomness import address, uniform
from .captions import Captions, lines
from .machine import Workers
from .parallel import ALONE, Processes
from .settings import TrainingSettings
from .state import TrainState
from .stream import ExampleStream
from .trainee import Strata, Trainee

AMONG = 100
"""Captions among which the right one is looked for, when the towers are validated."""


@dataclass
class ClipTrainee(Trainee):
    """The towers, and the pairs that they learn from.

    Args:
        clip: Trained in place.
        captions: How captions are drawn and numbered.
        train: The training data, with captions.
        held_out: Data for validation; empty to validate on the training data.
        seed: Of data order and captions.
        workers: Processes that read the data ahead; see `Trainee.workers`.
    """

    clip: Clip
    captions: Captions
    train: AnyDataset
    held_out: AnyDataset
    seed: int
    workers: Workers = "auto"
    micro_batch = 0
    whole = True

    @property
    def module(self) -> Clip:
        """See `Trainee.module`."""
        return self.clip

    @property
    def network(self) -> Clip:
        """See `Trainee.network`."""
        return self.clip

    def companion(self) -> Companion:
        """See `Trainee.companion`."""
        return Companion()

    def examples(self, state: TrainState) -> PairStream:
        """See `Trainee.examples`."""
        if state.processes.count > 1:
            raise BadOption(
                "kind clip: every pair is told from all of its batch, so it trains in one process: leave torchrun out"
            )
        return PairStream(self.train, self.captions, state.settings.batch_size, self.seed)

    def gradient(self, state: TrainState) -> ContrastiveGradient:
        """See `Trainee.gradient`."""
        return ContrastiveGradient(self.clip, state)

    def validation(self, settings: TrainingSettings, processes: Processes) -> tuple[Retrieval, Strata | None]:
        """See `Trainee.validation`."""
        data = (self.held_out if len(self.held_out) else self.train).part(settings.validation_size)
        return Retrieval(self.captions, data, settings.validation_size, self.seed), None


class PairStream(ExampleStream):
    """The pictures and captions of every step of a run.

    Args:
        dataset: With captions.
        captions: How they are drawn and numbered.
        batch_size: Pairs a step.
        seed: Of the run.
    """

    def __init__(self, dataset: AnyDataset, captions: Captions, batch_size: int, seed: int) -> None:
        super().__init__(dataset, batch_size, seed)
        self.captions = captions

    def block(self, block: int) -> Prepared:
        """See `ExampleStream.block`."""
        positions = self.positions(block)
        data = self._data(positions)
        seen = self.dataset.augmentation.apply(data.x, self.seed, positions)
        texts = self.captions.drawn(data.texts or (), self.seed, positions)
        return pairs(seen, self.captions.text.ids(texts, self.captions.length))


def pairs(pictures: Tensor, ids: Tensor) -> Prepared:
    """Pictures and the tokens of their captions, as the loop passes them on."""
    x = IdentityCodec.pixels().encode(pictures)
    nothing = torch.zeros(len(x))
    return Prepared(x, nothing, {"text": ids}, nothing, nothing, Draws(nothing, nothing, nothing, None))


def same_texts(ids: Tensor) -> Tensor:
    """Which texts are the same, shape (B, B), bool, of their tokens, shape (B, tokens)."""
    return (ids[:, None] == ids[None]).all(2)


class ContrastiveGradient:
    """Brings the gradients of the towers' loss into the state of a run: that of a whole batch at once.

    Args:
        clip: What learns.
        state: Where gradients are summed.
    """

    def __init__(self, clip: Clip, state: TrainState) -> None:
        self.clip, self.state = clip, state

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """See `Summing.add`."""
        assert examples.cond is not None
        ids = examples.cond["text"]
        pictures, texts = self.clip(examples.inputs, None, examples.cond).float().chunk(2, dim=1)
        losses = contrastive_losses(pictures, texts, self.clip.scale.float(), same_texts(ids))
        torch.autograd.backward(scale * losses.sum(), inputs=self.state.parameters)
        self.state.accumulate()
        return losses.detach()


class Retrieval:
    """Fixed pairs, of which each picture has to find its caption among a hundred.

    Args:
        captions: How captions are numbered; the first of each picture is taken.
        data: Where the pairs come from.
        size: How many, at most.
        seed: Which.
    """

    def __init__(self, captions: Captions, data: Dataset, size: int, seed: int) -> None:
        picks = np.argsort(uniform(address(seed, "validation"), range(len(data)))[:, 0], kind="stable")[:size]
        some = data.take(torch.from_numpy(picks.copy()))
        texts = [lines(text)[0] for text in some.texts or ()]
        first = {text: i for i, text in reversed(list(enumerate(texts)))}
        kept = torch.tensor(sorted(first.values()))  # each caption once
        self.pairs = pairs(some.x[kept], captions.text.ids([texts[int(i)] for i in kept], captions.length))

    @torch.no_grad()
    def loss(self, module: nn.Module, batch_size: int = 256, processes: Processes = ALONE) -> Strata:
        """See `Validating.loss`; the loss is that among a hundred, and beside it is the share of captions that are found."""
        assert isinstance(module, Clip)
        place, training = next(module.parameters()).device, module.training
        module.eval()
        made = [
            module(part.inputs.to(place), None, {"text": part.cond["text"].to(place)}).float().cpu()
            for part in self.pairs.split(batch_size)
            if part.cond is not None
        ]
        module.train(training)
        losses, found = [], []
        pictures, texts = torch.cat(made).chunk(2, dim=1)
        hundreds = max(len(pictures) // AMONG, 1)  # whole ones, or all where there are fewer
        for i in range(0, hundreds * AMONG, AMONG):
            some, their = pictures[i : i + AMONG], texts[i : i + AMONG]
            own = torch.eye(len(some), dtype=torch.bool)
            losses.append(contrastive_losses(some, their, module.scale.float().cpu(), own))
            found.append((some @ their.T).argmax(1) == torch.arange(len(some)))
        return Strata(float(torch.cat(losses).mean()), more={"retrieval": float(torch.cat(found).double().mean())})
