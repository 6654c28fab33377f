"""The examples of every step of a run, a block of steps at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.base import AnyDataset, Dataset
from ..objectives.examples import Prepared
from ..objectives.history import LossHistory

# Of a block: enough to make the cost of a block's tensors vanish, small enough to stay in the cache.
_TARGET_VALUES = 1 << 18
# On a GPU every operation has its price, whatever its size.
_TARGET_VALUES_THERE = 1 << 22

Positions = NDArray[np.int64]

HERE = torch.device("cpu")


class ExampleStream(ABC):
    """The examples of every step of a run.

    Position p is the p-th sample that the run sees. What is made of it depends on the seed and p alone, so a run may stop and
    go on anywhere.

    Args:
        dataset: What is learned.
        batch_size: Samples a step.
        seed: Of the run.
        share: The first and one past the last sample of every batch that are wanted; all where none is given.
        beside: Numbers that go with a sample beside those of its data.
        device: Where the examples are made of the data.
    """

    history: LossHistory | None = None
    """The losses so far, where the examples follow them."""

    def __init__(
        self,
        dataset: AnyDataset,
        batch_size: int,
        seed: int,
        share: tuple[int, int] | None = None,
        beside: int = 0,
        device: torch.device = HERE,
    ) -> None:
        self.dataset, self.batch_size, self.seed, self.device = dataset, batch_size, seed, device
        self.share = share or (0, batch_size)
        values = batch_size * (math.prod(dataset.spec.shape) + beside)
        target = _TARGET_VALUES if device.type == "cpu" else _TARGET_VALUES_THERE
        self.block_steps = max(1, min(256, target // values))
        self.steps: int | None = None
        self._block: tuple[int, list[Prepared]] | None = None
        self.order = dataset.order(seed, batch_size)
        self.read: Callable[[Tensor], Dataset] = dataset.take  # whoever reads ahead puts its own here

    def until(self, steps: int) -> Self:
        """Itself, which makes nothing for later steps than these any more: of a short run a block is a small part."""
        self.steps = steps
        return self

    @property
    def blocks(self) -> float:
        """How many blocks there are."""
        return math.inf if self.steps is None else math.ceil(self.steps / self.block_steps)

    @abstractmethod
    def block(self, block: int) -> Prepared:
        """The examples of a block of steps, worked out now."""

    def step(self, step: int, device: torch.device) -> Prepared:
        """The examples of one step, ready for the network.

        Blocks of steps begin at multiples of `block_steps` whatever the step asked for, so that a resumed run works out
        the very same numbers.
        """
        block = step // self.block_steps
        if self._block is None or self._block[0] != block:
            self._block = block, self.steps_of(self.block(block).to(device))
        return self._block[1][step % self.block_steps]

    def steps_of(self, block: Prepared) -> list[Prepared]:
        """The examples of every step out of those of a block."""
        return block.split(self.share[1] - self.share[0])

    def positions(self, block: int) -> Positions:
        """The positions of a block of steps, of this share of every batch."""
        end = (block + 1) * self.block_steps
        steps = np.arange(block * self.block_steps, end if self.steps is None else min(end, self.steps), dtype=np.int64)
        return (steps[:, None] * self.batch_size + np.arange(*self.share, dtype=np.int64)).reshape(-1)

    def numbers(self, step: int) -> Positions:
        """Which samples of the data this share of a step's batch is made of."""
        positions = step * self.batch_size + np.arange(*self.share, dtype=np.int64)
        return np.asarray(self.order.index_at(positions), dtype=np.int64)

    def _data(self, positions: Positions) -> Dataset:
        return self.read(torch.from_numpy(self.order.index_at(positions)))
