"""Laws of the learning rate: how it goes on after warm-up, as a share of its peak."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..options import Checked, option
from ..registry import Registry


class Progress(NamedTuple):
    """Where a run stands; all three in updates, or all three in images seen."""

    now: float
    warm: float  # where the warm-up ends
    end: float  # of the run

    @property
    def done(self) -> float:
        """The share of what comes after the warm-up that is done, from 0 to 1."""
        return min(max((self.now - self.warm) / max(self.end - self.warm, 1), 0.0), 1.0)


class LearningRate(Checked, ABC):
    """A frozen dataclass: a law."""

    @abstractmethod
    def factor(self, progress: Progress) -> float:
        """The learning rate as a share of its peak, once the warm-up is over."""

    def at(self, progress: Progress, update: float = 1.0) -> float:
        """The same at any moment: during warm-up it rises linearly, and is never 0.

        Args:
            progress: Before the update that the rate is for.
            update: How far the update itself brings the run: 1 update, or the images in a batch.
        """
        if progress.now < progress.warm:
            return min((progress.now + update) / progress.warm, 1.0)
        return self.factor(progress)


learning_rates: Registry[LearningRate] = Registry("learning rate law")


@learning_rates.register("constant")
@dataclass(frozen=True)
class ConstantRate(LearningRate):
    """The peak for ever: a run may go on as long as one likes; the average of the weights does the cooling."""

    def factor(self, progress: Progress) -> float:
        """See `LearningRate.factor`."""
        return 1.0


@learning_rates.register("linear")
@dataclass(frozen=True)
class LinearRate(LearningRate):
    """A straight line to a share of the peak at the last update."""

    floor: float = option(0.0, help="share of the peak at the end", low=0.0, high=1.0)

    def factor(self, progress: Progress) -> float:
        """See `LearningRate.factor`."""
        return 1 - progress.done * (1 - self.floor)


@learning_rates.register("cosine")
@dataclass(frozen=True)
class CosineRate(LearningRate):
    """Half a cosine wave to a share of the peak at the last update.

    References:
        SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov and Hutter, 2017), Equation 5,
        https://arxiv.org/abs/1608.03983
    """

    floor: float = option(0.0, help="share of the peak at the end", low=0.0, high=1.0)

    def factor(self, progress: Progress) -> float:
        """See `LearningRate.factor`."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress.done)) / 2


@learning_rates.register("inverse_sqrt")
@dataclass(frozen=True)
class InverseSqrtRate(LearningRate):
    """The peak until a reference point, then falling with the root of what was seen; it does not know where the run ends.

    Warm-up and fall are multiplied, so that a reference before the end of the warm-up leaves no jump: the peak is not reached then.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Equation 67,
        https://arxiv.org/abs/2312.02696
    """

    reference: float = option(10_000.0, help="until when it stays at the peak, in training.counted_in", low=1.0)

    def factor(self, progress: Progress) -> float:
        """See `LearningRate.factor`."""
        return 1 / math.sqrt(max(progress.now / self.reference, 1.0))

    def at(self, progress: Progress, update: float = 1.0) -> float:
        """See `LearningRate.at`; already falling during a warm-up that ends after the reference."""
        rate = super().at(progress, update)
        return rate * self.factor(progress) if progress.now < progress.warm else rate


@learning_rates.register("trapezoid")
@dataclass(frozen=True)
class TrapezoidRate(LearningRate):
    """Warm-up, the peak, and a fall in the last share of what comes after it: to train longer, only the fall is done again.

    References:
        MiniCPM (Hu et al., 2024), Section 4 (warmup-stable-decay), https://arxiv.org/abs/2404.06395
        Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations (Hägele et al., 2024), Equation 2,
        https://arxiv.org/abs/2405.18392
    """

    share: float = option(0.2, help="share of what comes after the warm-up in which it falls", low=0.0, high=1.0)
    shape: Literal["sqrt", "linear"] = option("sqrt", help="of the fall: 1 - sqrt(x), or a line")
    floor: float = option(0.0, help="share of the peak at the end", low=0.0, high=1.0)

    def factor(self, progress: Progress) -> float:
        """See `LearningRate.factor`."""
        fallen = max(progress.done - (1 - self.share), 0.0) / self.share if self.share else 0.0
        depth = math.sqrt(fallen) if self.shape == "sqrt" else fallen
        return 1 - depth * (1 - self.floor)
