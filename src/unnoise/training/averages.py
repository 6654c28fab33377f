r"""Moving averages of the weights: the model that samples is one of them.

Weights that are still moving at the learning rate's pace scatter about where they are going; their average lies nearer to it. How
far back it should look is not known before a run, so a run may keep several, and of two power averages that were stored now and
then, `posthoc` makes one of any length when the run is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import BadOption
from ..options import Checked, option
from ..registry import Registry


class Average(Checked, ABC):
    """A frozen dataclass with one number, its length: a moving average of the weights."""

    @abstractmethod
    def kept(self, step: int, batch_size: int) -> float:
        """The share of the average that an update keeps; the rest comes from the new weights.

        Args:
            step: Updates before this one.
            batch_size: Images an update.
        """

    def horizon(self, step: int, batch_size: int) -> float:
        """How many updates it looks back, where it stands after so many: one over the share of the newest weights."""
        return 1 / (1 - self.kept(step - 1, batch_size))

    @property
    def name(self) -> str:
        """What a person types, such as power-0.1."""
        (field,) = fields(self)  # type: ignore[arg-type]
        return f"{self.registered_name}-{getattr(self, field.name)}"  # type: ignore[attr-defined]


averages: Registry[Average] = Registry("average")


def _short_start(step: int) -> float:
    """The longest memory that still forgets the first weights quickly: that of a power average, gamma 8."""
    return (1 + step) / (10 + step)


@averages.register("exponential")
@dataclass(frozen=True)
class ExponentialAverage(Average):
    """Every update keeps the same share of the average; short at first, so that the start is forgotten."""

    memory: float = option(0.999, help="share of the average that an update keeps", low=0.0, high=0.999999)

    def kept(self, step: int, batch_size: int) -> float:
        """See `Average.kept`."""
        return min(self.memory, _short_start(step))


@averages.register("halflife")
@dataclass(frozen=True)
class HalfLifeAverage(Average):
    """Exponential, with its half-life in images seen, so that it stays what it is when the batch size changes.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Appendix F.2,
        https://arxiv.org/abs/2206.00364
    """

    images: int = option(500_000, help="images after which the weights of today count half", low=1)

    def kept(self, step: int, batch_size: int) -> float:
        """See `Average.kept`."""
        return min(0.5 ** (batch_size / self.images), _short_start(step))


@averages.register("power")
@dataclass(frozen=True)
class PowerAverage(Average):
    r"""The weights at time τ of a run of length t count as τ^γ: the average grows longer as the run does.

    .. math:: \hat\theta(t) = \frac{\gamma + 1}{t^{\gamma + 1}} \int_0^t \tau^\gamma \theta(\tau)\, d\tau, \qquad
        \beta_t = (1 - 1/t)^{\gamma + 1}

    The update is exact for weights that stand still between updates. The very first weights count nothing.

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Equations 121 and 127,
        https://arxiv.org/abs/2312.02696
    """

    length: float = option(
        0.1, help="standard deviation of the profile as a share of the run (sigma_rel)", low=0.001, high=0.28
    )

    @property
    def gamma(self) -> float:
        """The exponent."""
        return power_exponent(self.length)

    def kept(self, step: int, batch_size: int) -> float:
        """See `Average.kept`."""
        return float((step / (step + 1)) ** (self.gamma + 1))


def power_exponent(length: float) -> float:
    r"""The exponent γ of the power profile whose standard deviation is a share of the run.

    .. math:: \sigma_{rel} = (\gamma + 1)^{1/2} (\gamma + 2)^{-1} (\gamma + 3)^{-1/2}
        \iff \gamma^3 + 7\gamma^2 + (16 - \sigma_{rel}^{-2})\gamma + 12 - \sigma_{rel}^{-2} = 0

    References:
        Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), Equation 126 and
        Algorithm 2, https://arxiv.org/abs/2312.02696

    Args:
        length: Between 0 and 0.2887, the standard deviation of a uniform profile.
    """
    inverse = length**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


class SeveralAverages(Registry["tuple[Average, ...]"]):
    """The averages of a run: a number (the memory of an exponential one), a name such as power-0.1, a spec, or a list of these."""

    def build(self, spec: Any, where: str = "") -> tuple[Average, ...]:
        """One average or more, none twice; see `Registry.build`.

        Raises:
            BadOption: It is none, or one is there twice.
        """
        found = tuple(_one(each, where) for each in (spec if isinstance(spec, (list, tuple)) else [spec]))
        names = [each.name for each in found]
        if not names or len(set(names)) < len(names):
            raise BadOption(f"{where}: expected one average or more, none twice, got {names}")
        return found

    def describe(self, part: tuple[Average, ...]) -> Any:
        """See `Registry.describe`; a lone exponential average is its memory, as recipes always said."""
        if len(part) == 1 and isinstance(part[0], ExponentialAverage):
            return part[0].memory
        return [each.name for each in part]


def _one(spec: Any, where: str) -> Average:
    if isinstance(spec, (int, float)) and not isinstance(spec, bool):
        spec = {"name": "exponential", "memory": spec}
    if isinstance(spec, str):
        name, dash, number = spec.partition("-")
        try:
            value = float(number) if dash else None
        except ValueError:
            name, value = spec, None
        if value is None:
            try:
                spec = {"name": "exponential", "memory": float(name)}
            except ValueError:
                spec = {"name": name}
        else:
            spec = (
                {"name": name, **{key: value for key in averages.schema(name)}} if name in averages else {"name": spec}
            )
    if not isinstance(spec, (Mapping, Average)):
        raise BadOption(
            f"{where}: expected a memory such as 0.999, or averages such as [0.999, power-0.1, halflife-500000], got {spec!r}"
        )
    average = averages.build(spec, where)
    assert isinstance(average, Average)
    return average
