"""Which sample, time, noise and dropped condition each position of a run learns from: a function of seed and position.

Of an adaptive density the times are a function of the losses before, too; and the noise of a group of samples may be dealt out
among them. Both are still the same wherever a run was interrupted, and in whatever parts its batches are worked on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..codecs.base import Codec
from ..data.base import AnyDataset, Dataset
from ..denoisers.base import Denoiser
from ..objectives.base import Draws, Objective, Prepared
from ..objectives.history import LossHistory
from ..objectives.noise import NoiseSettings
from ..objectives.pairing import optimal_pairs
from ..randomness import address, normal, normal_like, uniform
from .captions import Captions, training_condition
from .stream import HERE, ExampleStream, Positions


class DrawStream(ExampleStream):
    """The examples of every step of a run of a denoiser.

    The data, time, noise and condition dropout of a position depend on the seed and the position alone.

    Args:
        dataset: What is learned.
        codec: The way into the model's space.
        denoiser: Gives the schedule and the null condition.
        objective: Gives the time density and the condition dropout, and prepares the examples.
        batch_size: Samples a step.
        seed: Of the run.
        history: The losses so far that the times follow, where the objective's do.
        share: The first and one past the last sample of every batch that are wanted; all where none is given.
        captions: How the data's captions are drawn, where they are learned.
        device: Where the examples are made of the data: noise is drawn there.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        codec: Codec,
        denoiser: Denoiser,
        objective: Objective,
        batch_size: int,
        seed: int,
        history: LossHistory | None = None,
        share: tuple[int, int] | None = None,
        captions: Captions | None = None,
        device: torch.device = HERE,
    ) -> None:
        super().__init__(dataset, batch_size, seed, share, 0 if captions is None else captions.values, device)
        self.codec, self.denoiser, self.objective, self.captions = codec, denoiser, objective, captions
        self.history = history
        if history is not None:  # a block ends where the density changes
            self.block_steps = max(n for n in range(1, self.block_steps + 1) if history.refresh % n == 0)
        self._pairs: dict[int, Positions] = {}

    def block(self, block: int) -> Prepared:
        """The examples of a block of steps, worked out now."""
        return self.objective.prepare(self.denoiser, self.draws(self.positions(block))).to(self.device)

    def draws(self, positions: Positions) -> Draws:
        """The examples at some positions of the run; of an adaptive density, with its times as they are drawn now."""
        u = torch.from_numpy(uniform(address(self.seed, "time"), positions)[:, 0].copy())
        return self._examples(self._data(positions), u, positions)

    def _encoded(self, data: Dataset, positions: Positions) -> Tensor:
        x = self.dataset.augmentation.apply(data.x, self.seed, positions)
        return self.codec.drawn(x.to(self.device), self.seed, positions)

    def _examples(self, data: Dataset, u: Tensor, positions: Positions) -> Draws:
        x_0 = self._encoded(data, positions)
        eps = noise_like(self.objective.noise, self.seed, "noise", self._noise_positions(positions), x_0)
        stratum = importance = None
        if self.history is not None:
            u, stratum, importance = self.history.draw(u)
        t = self.objective.times.quantile(u, self.denoiser.schedule)
        cond = training_condition(
            data, self.captions, self.denoiser, self.objective, self.seed, positions, self.dataset.augmentation
        )
        strength, noisier = self.objective.noise.perturbation, None
        if strength:
            noisier = eps + strength * normal_like(address(self.seed, "perturbation"), positions, x_0)  # type: ignore[arg-type]
        recalls = who_recalls(self.seed, positions) if self.denoiser.self_conditioned else None
        rarer = None if importance is None else importance.to(x_0)  # not every GPU has float64
        return Draws(x_0, eps, t, cond, noisier, recalls, stratum, rarer)

    def _noise_positions(self, positions: Positions) -> Positions:
        """Whose noise each position gets: its own, or that of another one of its group."""
        size = self.objective.noise.pairing
        if size == 1:
            return positions
        groups = positions // size
        wanted = [int(group) for group in np.unique(groups)]
        self._pairs = {group: self._pairs[group] if group in self._pairs else self._paired(group) for group in wanted}
        table = np.stack([self._pairs[group] for group in wanted])
        return np.asarray(table[np.searchsorted(wanted, groups), positions % size])

    def _paired(self, group: int) -> Positions:
        size = self.objective.noise.pairing
        members = np.arange(group * size, (group + 1) * size, dtype=np.int64)
        x_0 = self._encoded(self._data(members), members)
        eps = noise_like(self.objective.noise, self.seed, "noise", members, x_0)
        return np.asarray(members[optimal_pairs(x_0.cpu(), eps.cpu()).numpy()])


def noise_like(settings: NoiseSettings, seed: int, purpose: str, positions: Positions, like: Tensor) -> Tensor:
    """The noise of some samples, with what the settings add to it.

    Args:
        settings: Of the objective.
        seed: Of the run.
        purpose: What the noise is for, which is a part of its address.
        positions: n of them.
        like: Encoded data, shape (n, ...).

    Raises:
        IncompatibleParts: The settings do not fit the data.
    """
    settings.check(like)
    eps = normal_like(address(seed, purpose), positions, like)  # type: ignore[arg-type]
    if settings.offset:
        channels = normal(address(seed, f"{purpose} of a channel"), positions, like.shape[1])
        constant = torch.from_numpy(channels).to(like).reshape(*like.shape[:2], *[1] * (like.ndim - 2))
        eps = eps + settings.offset * constant
    return eps


def who_recalls(seed: int, positions: Positions) -> Tensor:
    """Which samples a self-conditioned network sees its own estimate of, shape (n,), bool: one of every two that follow each other.

    So half of any batch of an even size does, and its first pass is of one size throughout a run.
    """
    odd = uniform(address(seed, "self-conditioning"), positions // 2)[:, 0] < 0.5
    return torch.from_numpy((positions % 2 == 1) == odd)
