"""What training does to a picture each time that it sees it: mirrored, moved by a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..randomness import address, uniform

Positions = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Random flips and shifts, a function of seed and position alone: the same in any batch, with any number of workers.

    Args:
        flips: Whether every other picture, by chance, is its mirror image.
        shift: Pictures are moved by up to so many pixels each way; what comes in is the mirrored margin.
    """

    flips: bool = False
    shift: int = 0

    def apply(self, x: Tensor, seed: int, positions: Positions) -> Tensor:
        """The pictures as a run sees them.

        Args:
            x: Shape (n, C, H, W).
            seed: Of the run.
            positions: Shape (n,): the p-th sample that the run sees.

        Returns:
            Shape (n, C, H, W); `x` itself where nothing is done.
        """
        if not (self.flips or self.shift):
            return x
        if self.flips:
            x = torch.where(self.mirrored(seed, positions).reshape(-1, 1, 1, 1), x.flip(-1), x)
        return self._moved(x, _chance(seed, positions)[:, 1:]) if self.shift else x

    @staticmethod
    def mirrored(seed: int, positions: Positions) -> Tensor:
        """Which pictures are mirrored where that is asked for, shape (n,), bool."""
        return _chance(seed, positions)[:, 0] < 0.5

    def _moved(self, x: Tensor, chance: Tensor) -> Tensor:
        """The pictures, each moved by whole pixels: a gather from where every pixel comes."""
        by = (chance * (2 * self.shift + 1)).long() - self.shift  # (n, 2), each in [-shift, shift]
        rows, columns = (
            _mirrored(torch.arange(side) + by[:, i : i + 1], side) for i, side in enumerate(x.shape[-2:])
        )  # (n, H), (n, W)
        samples = torch.arange(len(x)).reshape(-1, 1, 1)
        return x.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).contiguous()


def _chance(seed: int, positions: Positions) -> Tensor:
    """What decides about each picture, shape (n, 3), in (0, 1)."""
    return torch.from_numpy(uniform(address(seed, "augmentation"), positions, 3))


def _mirrored(index: Tensor, side: int) -> Tensor:
    """Indices beyond the ends turned back inwards, the outermost pixel not said twice."""
    if side == 1:
        return torch.zeros_like(index)
    turned = index.remainder(2 * side - 2)
    return torch.where(turned < side, turned, 2 * side - 2 - turned)
