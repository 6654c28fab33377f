"""The Swiss roll, seen from its end: a spiral that starts away from the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._planar import Labels, PlanarDataset, Points
from .base import datasets

OUTER_RADIUS = 2.0


@datasets.register("swiss_roll")
@dataclass(frozen=True)
class SwissRollDataset(PlanarDataset):
    """Uniform angles theta in [1.5 pi, 4.5 pi] on a spiral of radius 2 theta / (4.5 pi); no labels."""

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points on the roll, shape (N, 2)."""
        theta = rng.uniform(1.5 * np.pi, 4.5 * np.pi, len(labels))
        radius = OUTER_RADIUS * theta / (4.5 * np.pi)
        return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)
