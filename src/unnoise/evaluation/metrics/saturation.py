"""How far colours are stronger than the data's: what too much guidance does first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...errors import DataError
from . import _pixels, _rows
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("saturation")
@dataclass(frozen=True)
class SaturationMetric(Metric):
    """How far the mean chroma of pictures is from that of the data, as a share of it: 0 is the data's.

    The chroma of a pixel is the largest of red, green and blue less the smallest, from 0, which is grey, to 1. `off` in the
    details says which way: 0.3 is colours 30 % stronger than the data's, as too much guidance makes them; less than 0 is
    colours that are paler.

    References:
        Color Gamut Transform Pairs (Smith, 1978), for chroma, https://doi.org/10.1145/965139.807361
        Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022), Section 2.3, for
        what guidance does to it, https://arxiv.org/abs/2205.11487
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"
    unit: ClassVar[str] = "share of the data's mean chroma"
    space: ClassVar[Literal["features", "data"]] = "data"

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("saturation", made, real)
        ours, theirs = chroma(made), chroma(real)
        mean = float(theirs.mean())
        if mean == 0:
            raise DataError("saturation: the data has no colours that those of samples could be held against")
        off = float(ours.mean()) / mean - 1
        notes = (
            f"colours are {off:.0%} stronger than the data's: take less guidance",
            f"colours are {-off:.0%} paler than the data's",
        )
        return _pixels.around("chroma", ours, theirs, off, (ours / mean, theirs * (1 + off) / mean), notes)


def chroma(cloud: Cloud) -> Tensor:
    """The mean chroma of every picture of a cloud in the space of the data, in [0, 1], shape (N,), float64.

    Raises:
        DataError: They are no colour pictures.
    """
    means = []
    for some in _pixels.pictures("saturation", cloud, channels=3).split(256):
        colours = some[:, :3].double()
        means.append((colours.amax(1) - colours.amin(1)).flatten(1).mean(1) / 2)
    return torch.cat(means).cpu()
