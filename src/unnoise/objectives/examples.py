"""Examples to learn from: as they are drawn, and as a network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..denoisers.base import Condition
from ..process.base import Schedule
from ..process.forward import add_noise


class Draws(NamedTuple):
    """Examples to learn from, each at its own time with its own noise."""

    x_0: Tensor  # (B, ...)
    eps: Tensor  # (B, ...), what targets are made of
    t: Tensor  # (B,), float64
    cond: Condition | None
    noisier: Tensor | None = None  # (B, ...), the noise in the network's input where that is not eps
    recalls: Tensor | None = None  # (B,), bool: who sees an estimate of before, where the network is self-conditioned
    stratum: Tensor | None = None  # (B,), int64: of an adaptive density, the share of it that t was drawn from
    importance: Tensor | None = None  # (B,): of an adaptive density, how much rarer than in the plain one t is drawn

    def x_t(self, schedule: Schedule) -> Tensor:
        """The noisy data that the network sees, shape (B, ...)."""
        return add_noise(self.x_0, self.eps if self.noisier is None else self.noisier, schedule, self.t)

    def take(self, part: slice | Tensor) -> Draws:
        """Some of the examples: a slice, or their indices."""
        return Draws(*(_taken(value, part) for value in self))

    def to(self, device: torch.device) -> Draws:
        """The same on another device; what is only looked at on the processor stays: times, strata and who recalls."""
        stay = {"t", "recalls", "stratum"}
        return Draws(*(v if name in stay else _moved(v, device) for name, v in self._asdict().items()))


class Prepared(NamedTuple):
    """Draws, ready for the network; every tensor has the batch first, so that steps are slices."""

    inputs: Tensor  # (B, ...), scaled to unit variance
    noise_level: Tensor  # (B,)
    cond: Condition | None
    target: Tensor  # (B, ...)
    weight: Tensor  # (B,)
    draws: Draws

    def slice(self, first: int, last: int) -> Prepared:
        """The examples first ... last - 1."""
        if first == 0 and last >= self.inputs.shape[0]:
            return self
        part = slice(first, last)
        return Prepared(*(_taken(value, part) for value in self))

    def split(self, size: int) -> list[Prepared]:
        """The examples in parts of `size`, the first first: what `slice` gives one by one, for much less."""
        count = -(-self.inputs.shape[0] // size)
        return [Prepared(*part) for part in zip(*(_parts(value, size, count) for value in self), strict=True)]

    def to(self, device: torch.device) -> Prepared:
        """The same on another device; of the draws see `Draws.to`."""
        return Prepared(*(_moved(value, device) for value in self))


def _taken(value: Any, part: slice | Tensor) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value[part if isinstance(part, slice) else part.to(value.device)]
    if isinstance(value, Draws):
        return value.take(part)
    return {name: _taken(each, part) for name, each in value.items()}


def _parts(value: Any, size: int, count: int) -> Sequence[Any]:
    if isinstance(value, Tensor):
        return value.split(size)
    if isinstance(value, Draws):
        return [Draws(*part) for part in zip(*(_parts(each, size, count) for each in value), strict=True)]
    if not value:
        return [value] * count
    columns = zip(*(_parts(each, size, count) for each in value.values()), strict=True)
    return [dict(zip(value, part, strict=True)) for part in columns]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (Tensor, Draws)):
        return value.to(device)
    return None if value is None else {name: each.to(device) for name, each in value.items()}
