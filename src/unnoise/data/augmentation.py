"""What training does to a picture each time that it sees it: mirrored, moved by a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..randomness import address, uniform
from .regions import NO_BOX, Regions

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

    def regions(self, regions: Regions, seed: int, positions: Positions, side: tuple[int, int]) -> Regions:
        """What stands where in the pictures that `apply` makes.

        Args:
            regions: Of the pictures as they are.
            seed: Of the run.
            positions: Shape (n,): the p-th sample that the run sees.
            side: Height and width of the pictures in pixels, by which they are moved.
        """
        if self.flips:
            regions = regions.mirrored(self.mirrored(seed, positions))
        if not self.shift:
            return regions
        by = self._by(_chance(seed, positions)[:, 1:])
        boxes, maps = regions.boxes, regions.maps
        if boxes is not None:  # what is moved in is the mirrored margin, of which boxes say nothing
            shares = by / torch.tensor(side)  # (n, 2): down, right
            moved = (boxes[..., 1:] - shares[:, [1, 0, 1, 0]][:, None].to(boxes)).clamp(0, 1)
            gone = (moved[..., 0] >= moved[..., 2]) | (moved[..., 1] >= moved[..., 3])
            boxes = torch.cat([torch.where(gone, NO_BOX, boxes[..., 0])[..., None], moved], dim=-1)
        if maps is not None:
            maps = self._moved(maps[:, None], _chance(seed, positions)[:, 1:])[:, 0]
        return replace(regions, boxes=boxes, maps=maps)

    def _by(self, chance: Tensor) -> Tensor:
        """By how many pixels every picture is moved up and left, shape (n, 2), each in [-shift, shift]."""
        return (chance * (2 * self.shift + 1)).long() - self.shift

    @staticmethod
    def mirrored(seed: int, positions: Positions) -> Tensor:
        """Which pictures are mirrored where that is asked for, shape (n,), bool."""
        return _chance(seed, positions)[:, 0] < 0.5

    def _moved(self, x: Tensor, chance: Tensor) -> Tensor:
        """The pictures, each moved by whole pixels: a gather from where every pixel comes."""
        by = self._by(chance)
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
