"""A spiral of two turns: one curve in the plane, easy to draw and not linear anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..options import option
from ._planar import Labels, PlanarDataset, Points
from .base import datasets

OUTER_RADIUS = 2.0


def spiral_curve(num_points: int) -> Points:
    """Points on the spiral at even angles: theta from 0 to 4 pi, radius 2 theta / (4 pi).

    Args:
        num_points: How many, N.

    Returns:
        Shape (N, 2).
    """
    theta = np.linspace(0, 4 * np.pi, num_points)
    radius = theta / (4 * np.pi) * OUTER_RADIUS
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)


@datasets.register("spiral")
@dataclass(frozen=True)
class SpiralDataset(PlanarDataset):
    """A spiral of two turns and radius 2, in order from the middle outwards; no labels."""

    num_points: int = option(300, help="how many points", low=1)

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points on the curve, shape (N, 2)."""
        return spiral_curve(len(labels))
