"""Two circles with one centre: a support of two pieces, one around the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..options import option
from ._planar import Labels, PlanarDataset, Points
from .base import datasets


def circles_curve(radii: Points, rng: np.random.Generator) -> Points:
    """Points at uniform angles on circles around the origin.

    Args:
        radii: Shape (N,), of the circle of each point.
        rng: Where the angles come from.

    Returns:
        Shape (N, 2).
    """
    theta = rng.uniform(0, 2 * np.pi, len(radii))
    return np.stack([radii * np.cos(theta), radii * np.sin(theta)], axis=1)


@datasets.register("circles")
@dataclass(frozen=True)
class CirclesDataset(PlanarDataset):
    """A circle of radius 1 around a smaller one; the label is the circle.

    Args:
        inner: Radius of the inner circle, in (0, 1).
    """

    inner: float = option(0.5, help="radius of the inner circle; the outer one has 1", low=0, high=1)

    class_names: ClassVar[tuple[str, ...]] = ("outer", "inner")

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points on the two circles, shape (N, 2)."""
        return circles_curve(np.array([1.0, self.inner])[labels], rng)
