"""Points on the black squares of a board: many modes with sharp edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..options import option
from ._planar import Labels, PlanarDataset, Points
from .base import datasets


@datasets.register("checkerboard")
@dataclass(frozen=True)
class CheckerboardDataset(PlanarDataset):
    """Uniform on the eight black squares of a board of 4 x 4 over [-1, 1]^2; the label is the square, row by row."""

    noise: float = option(0.0, help="standard deviation of the jitter, in the units of the plane", low=0)

    class_names: ClassVar[tuple[str, ...]] = tuple("01234567")

    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points inside of the squares, shape (N, 2)."""
        row = labels // 2
        column = 2 * (labels % 2) + row % 2
        return (np.stack([column, row], axis=1) + rng.uniform(size=(len(labels), 2))) / 2 - 1
