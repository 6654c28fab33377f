"""Two half circles that reach into each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._planar import Labels, PlanarDataset, Points
from .base import datasets


def moons_curve(labels: Labels, rng: np.random.Generator) -> Points:
    """Points at uniform angles on the upper half of a circle around (0, 0) and the lower half of one around (1, 0.5).

    Args:
        labels: Shape (N,), 0 for the upper and 1 for the lower moon.
        rng: Where the angles come from.

    Returns:
        Shape (N, 2).
    """
    theta = rng.uniform(0, np.pi, len(labels))
    upper = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    return np.where(labels[:, None] == 0, upper, [1.0, 0.5] - upper)


@datasets.register("moons")
@dataclass(frozen=True)
class MoonsDataset(PlanarDataset):
    """Two half circles of radius 1 that reach into each other; the label is the moon."""

    class_names: ClassVar[tuple[str, ...]] = ("upper", "lower")

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points on the two moons, shape (N, 2)."""
        return moons_curve(labels, rng)
