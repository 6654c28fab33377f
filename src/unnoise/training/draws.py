"""Which sample, time, noise and dropped condition each position of a run learns from: a function of seed and position."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..codecs.base import Codec
from ..data.base import AnyDataset, Dataset
from ..denoisers.base import Denoiser
from ..objectives.base import Draws, Objective, Prepared, drop_conditions
from ..randomness import address, normal_like, uniform

_TARGET_VALUES = (
    1 << 18
)  # of a block: enough to make the cost of a block's tensors vanish, small enough to stay in the cache


class DrawStream:
    """The examples of every step of a run.

    Position p is the p-th sample that the run sees. Its data, time, noise and condition dropout depend on the seed and p
    alone, so a run may stop and go on anywhere.

    Args:
        dataset: What is learned.
        codec: The way into the model's space.
        denoiser: Gives the schedule and the null condition.
        objective: Gives the time density and the condition dropout, and prepares the examples.
        batch_size: Samples a step.
        seed: Of the run.
    """

    def __init__(
        self, dataset: AnyDataset, codec: Codec, denoiser: Denoiser, objective: Objective, batch_size: int, seed: int
    ) -> None:
        self.dataset, self.codec, self.denoiser, self.objective = dataset, codec, denoiser, objective
        self.batch_size, self.seed = batch_size, seed
        values = batch_size * math.prod(dataset.spec.shape)
        self.block_steps = max(1, min(256, _TARGET_VALUES // values))
        self._block: tuple[int, Prepared] | None = None
        self.order = dataset.order(seed)

    def step(self, step: int, device: torch.device) -> Prepared:
        """The examples of one step, ready for the network.

        Blocks of steps begin at multiples of `block_steps` whatever the step asked for, so that a resumed run works out
        the very same numbers.
        """
        block = step // self.block_steps
        if self._block is None or self._block[0] != block:
            first = block * self.block_steps * self.batch_size
            positions = np.arange(first, first + self.block_steps * self.batch_size, dtype=np.int64)
            self._block = block, self.objective.prepare(self.denoiser, self.draws(positions)).to(device)
        offset = (step - block * self.block_steps) * self.batch_size
        return self._block[1].slice(offset, offset + self.batch_size)

    def draws(self, positions: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Draws:
        """The examples at some positions of the run."""
        u = torch.from_numpy(uniform(address(self.seed, "time"), positions)[:, 0].copy())
        return self._examples(self.dataset.take(torch.from_numpy(self.order.index_at(positions))), u, positions)

    def _examples(self, data: Dataset, u: Tensor, positions: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Draws:
        x_0 = self.codec.encode(self.dataset.augmentation.apply(data.x, self.seed, positions))
        eps = normal_like(address(self.seed, "noise"), positions, x_0)  # type: ignore[arg-type]
        t = self.objective.times.quantile(u, self.denoiser.schedule)
        cond = None if data.labels is None else {"label": data.labels}
        if cond is not None:
            dropped = uniform(address(self.seed, "dropout"), positions)[:, 0] < self.objective.condition_dropout
            cond = dict(drop_conditions(cond, self.denoiser.null_condition(len(x_0)), torch.from_numpy(dropped)) or {})
        return Draws(x_0, eps, t, cond)
