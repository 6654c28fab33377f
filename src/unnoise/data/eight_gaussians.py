"""Eight normal distributions on a ring: the plainest test of whether a model finds every mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..options import option
from ._planar import Labels, PlanarDataset, Points
from .base import datasets

RADIUS = 2.0


@datasets.register("eight_gaussians")
@dataclass(frozen=True)
class EightGaussiansDataset(PlanarDataset):
    """Normal distributions of equal weight, centred at radius 2 and angles k pi / 4; the label is k."""

    noise: float = option(0.2, help="standard deviation of each of the eight, in the units of the plane", low=0)

    class_names: ClassVar[tuple[str, ...]] = tuple("01234567")

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The centre of each point's distribution, shape (N, 2)."""
        theta = labels * np.pi / 4
        return RADIUS * np.stack([np.cos(theta), np.sin(theta)], axis=1)
