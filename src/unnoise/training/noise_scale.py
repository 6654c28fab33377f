"""How noisy a gradient is, which says how large a batch is worth its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class GradientNorms:
    """The squared norms of the gradient of one step, of a part of its batch and of the whole.

    Args:
        part: Samples of the part.
        part_squared: Squared norm of the mean gradient over the part.
        batch: Samples of the batch.
        batch_squared: Squared norm of the mean gradient over the batch.
    """

    part: float
    part_squared: float
    batch: float
    batch_squared: float

    @property
    def signal(self) -> float:
        """An unbiased estimate of the squared norm of the true gradient; may be negative by chance."""
        return (self.batch * self.batch_squared - self.part * self.part_squared) / (self.batch - self.part)

    @property
    def noise(self) -> float:
        """An unbiased estimate of the trace of the covariance of a single sample's gradient."""
        return (self.part_squared - self.batch_squared) / (1 / self.part - 1 / self.batch)


class GradientNoiseScale:
    """The simple noise scale tr(Σ) / |G|², in samples: batches far below it are cheap to enlarge, far above it wasted.

    Numerator and denominator are averaged over steps apart, since the ratio of two noisy estimates is biased.

    References:
        An Empirical Model of Large-Batch Training (McCandlish et al., 2018), Equation 2.9 and Appendix A.1,
        https://arxiv.org/abs/1812.06162

    Args:
        memory: Of the averages, in [0, 1), in measurements.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory = memory
        self._noise = self._signal = 0.0

    def add(self, noise: float, signal: float) -> None:
        """Takes the estimates of one more step, see `GradientNorms`; those that are not finite are passed over."""
        if math.isfinite(noise) and math.isfinite(signal):
            self._noise = self.memory * self._noise + (1 - self.memory) * noise
            self._signal = self.memory * self._signal + (1 - self.memory) * signal

    @property
    def value(self) -> float | None:
        """In samples; None as long as chance hides the gradient."""
        return self._noise / self._signal if self._signal > 0 and self._noise > 0 else None
