"""Points in the plane: what the toy data sets share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..options import option
from .base import Dataset, DataSource, Progress, Spec

Points = NDArray[np.float64]  # shape (N, 2)
Labels = NDArray[np.int64]  # shape (N,)


@dataclass(frozen=True)
class PlanarDataset(DataSource):
    """Points on a curve or in a region of the plane, then normal jitter; the labels take turns, so each has its share.

    Args:
        num_points: How many points.
        noise: Standard deviation of the jitter, in the units of the plane.
        seed: Which draw; the same points for the same seed.
    """

    num_points: int = option(2000, help="how many points", low=1)
    noise: float = option(0.05, help="standard deviation of the jitter, in the units of the plane", low=0)
    seed: int = option(0, help="which draw of the points", low=0)

    class_names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def draw(self, labels: Labels, rng: np.random.Generator) -> Points:
        """The points before the jitter.

        Args:
            labels: Shape (N,), of each point; zeros where the set has no labels.
            rng: Where chance comes from.

        Returns:
            Shape (N, 2).
        """

    def load(self, progress: Progress | None = None) -> Dataset:
        """The points, float32 of shape (num_points, 2), with their labels if the set has any."""
        rng = np.random.default_rng(self.seed)
        labels = np.arange(self.num_points) % max(1, len(self.class_names))
        points = self.draw(labels, rng)
        points = points + self.noise * rng.standard_normal(points.shape)
        x = torch.from_numpy(points.astype(np.float32))
        spec = Spec("points", (2,), self.class_names)
        return Dataset(x, spec, torch.from_numpy(labels) if self.class_names else None)
