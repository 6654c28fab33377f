"""How many more pixels stand at the end of their range than in the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from . import _pixels, _rows
from .base import Cloud, Estimate, Metric, metrics

EDGE = 1 - 1 / 255
"""Pixels in [-1, 1] that are further out than this are 0 or 255."""


@metrics.register("clipping")
@dataclass(frozen=True)
class ClippingMetric(Metric):
    """How far the share of pixel values that are 0 or 255 is from that of the data: 0 is the data's.

    Guidance drives values beyond what a picture can hold, where they are cut off. `off` in the details says which way: 0.1 is
    one value in ten that is cut off and would not be in the data. Every channel of every pixel counts by itself.

    References:
        Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022), Section 2.3,
        https://arxiv.org/abs/2205.11487
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "share of pixel values"
    space: ClassVar[Literal["features", "data"]] = "data"

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("clipping", made, real)
        ours, theirs = clipped(made), clipped(real)
        off = float(ours.mean() - theirs.mean())
        notes = (
            f"{off:.1%} more of the pixel values than in the data are cut off: take less guidance",
            f"{-off:.1%} fewer of the pixel values than in the data are at the end of their range",
        )
        return _pixels.around("clipped", ours, theirs, off, (ours, theirs), notes)


def clipped(cloud: Cloud) -> Tensor:
    """The share of 0 and 255 in every picture of a cloud in the space of the data, shape (N,), float64.

    Raises:
        DataError: They are no pictures.
    """
    return torch.cat(
        [(some.abs() > EDGE).double().flatten(1).mean(1) for some in _pixels.pictures("clipping", cloud).split(256)]
    ).cpu()
