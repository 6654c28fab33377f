"""What the meters of strong guidance share: pictures as pixels, and a number on one side of the data's or the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...errors import DataError
from . import _bars
from .base import Cloud, Estimate


def pictures(name: str, cloud: Cloud, channels: int | None = None) -> Tensor:
    """The rows of a cloud as pictures, shape (N, C, H, W), in [-1, 1].

    Raises:
        DataError: They are none, or have another number of channels.
    """
    shape = cloud.shape
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3, 4):
        raise DataError(f"{name} looks at pictures, got {'features' if shape is None else f'samples of {shape}'}")
    if channels is not None and shape[0] < channels:
        raise DataError(f"{name} looks at colours, and these pictures are grey")
    return cloud.features.unflatten(1, shape)


def around(
    name: str, made: Tensor, real: Tensor, off: float, influences: Sequence[Tensor], notes: tuple[str, str]
) -> Estimate:
    """How far a mean over pictures is from that of the data, either way.

    Args:
        name: Of what is measured, for the details.
        made: Its value of every made picture, shape (N,).
        real: The same of real ones, shape (M,).
        off: How far it is too high; less than 0 where it is too low.
        influences: How every sample of either side moves `off`.
        notes: What to say where it is too high, and where it is too low, by more than chance.
    """
    half = _bars.half_width([_bars.of_influences(each) for each in influences])
    low, high = max(0.0, abs(off) - half), abs(off) + half
    details = {name: float(made.mean()), f"{name}_real": float(real.mean()), "off": off, "half_width": half}
    told = (notes[0 if off > 0 else 1],) if low > 0 else ()
    return Estimate(abs(off), low, high, len(made), len(real), "variance of the pictures' means", details, told)
