"""A spiral, two circles and two moons in one plane, told apart by their labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ._planar import Labels, PlanarDataset, Points
from .base import datasets
from .circles import circles_curve
from .moons import moons_curve
from .spiral import spiral_curve


@datasets.register("three_shapes")
@dataclass(frozen=True)
class ThreeShapesDataset(PlanarDataset):
    """Three shapes around the origin that overlap, each reaching to about 2; the label says which."""

    class_names: ClassVar[tuple[str, ...]] = ("spiral", "circles", "moons")

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points on the three shapes, shape (N, 2)."""
        counts = np.bincount(labels, minlength=3)
        alternating = [np.arange(count) % 2 for count in counts]
        shapes = (
            spiral_curve(counts[0]),
            circles_curve(np.array([2.0, 1.0])[alternating[1]], rng),
            (moons_curve(alternating[2], rng) - [0.5, 0.25]) * (4 / 3),
        )
        points = np.empty((len(labels), 2))
        for label, shape in enumerate(shapes):
            points[labels == label] = shape
        return points
