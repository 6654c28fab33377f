"""What a metric is: two clouds of samples in, a number with its 95 % interval out.

A cloud is a finite sample of a distribution, and so is every number worked out of it. An estimate therefore never comes
without the interval that this chance leaves, and without how many samples it was worked out of.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from ...errors import ShapeError
from ...options import Checked
from ...registry import Registry


@dataclass(frozen=True)
class Cloud:
    """Samples as a metric sees them.

    Args:
        features: Shape (N, D), float32 or float64; may be mapped from disk.
        labels: Of real samples their own, of made ones what was asked for; shape (N,), int64, or None.
        predicted: The labels that a classifier reads off the samples, shape (N,), int64, or None.
        shape: Of one sample, where the features are the samples themselves as rows: (3, 32, 32), say; else None.

    Raises:
        ShapeError: There are no features, or not as many labels, or rows of another length than the shape has.
    """

    features: Tensor
    labels: Tensor | None = None
    predicted: Tensor | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.numel() == 0:
            raise ShapeError(f"expected features of shape (N, D) with N at least 1, got {tuple(self.features.shape)}")
        for name in ("labels", "predicted"):
            value = getattr(self, name)
            if value is not None and value.shape != (len(self.features),):
                raise ShapeError(f"expected {name} of shape ({len(self.features)},), got {tuple(value.shape)}")
        if self.shape is not None and math.prod(self.shape) != self.features.shape[1]:
            raise ShapeError(f"expected rows of {self.shape}, got {self.features.shape[1]} numbers each")

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: Tensor) -> Cloud:
        """The samples at `indices`, shape (n,), in that order."""
        labels, predicted = (None if each is None else each[indices] for each in (self.labels, self.predicted))
        return Cloud(self.features[indices], labels, predicted, self.shape)


@dataclass(frozen=True)
class Estimate:
    """A number, how sure it is, and what it was worked out of.

    Args:
        value: The number.
        low: Lower end of its 95 % interval.
        high: Upper end.
        num_made: Made samples that were looked at.
        num_real: Real samples that were looked at.
        interval: How the interval was found, in a few words.
        details: More numbers that belong to it, by name, such as the value without the bias of few samples.
        notes: What a reader must know to believe it, one line each.
    """

    value: float
    low: float
    high: float
    num_made: int
    num_real: int
    interval: str
    details: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Metric(Checked, ABC):
    """A frozen dataclass that holds the options of a metric; `measure` works it out."""

    registered_name: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    """Which way is better."""
    unit: ClassVar[str] = ""
    """What the number counts, in a few words, for a table."""
    space: ClassVar[Literal["features", "data"]] = "features"
    """Whether it looks at features, or at the samples themselves as rows of numbers."""
    needs_labels: ClassVar[bool] = False
    """Whether it can only be worked out where samples were asked for by label."""
    needs_real: ClassVar[bool] = True
    """Whether it compares with real data."""

    @abstractmethod
    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """The number, for samples of a model and real data.

        Args:
            made: Of the model, N samples.
            real: Of the data, M samples of the same D.
            seed: Of directions or of a choice of samples, where the metric draws any.

        Raises:
            ShapeError: The clouds have other dimensions.
            DataError: Features are not finite, or there are too few samples for a number at all.
        """


metrics: Registry[Metric] = Registry("metric", "unnoise.evaluation.metrics")
