"""The samples themselves as rows of numbers: the plainest features, and the only ones that have seen nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...data.base import Dataset, Spec
from ...errors import BadOption
from ...options import option
from .base import Extractor, FeatureSource, Progress, extractors
from .digest import digest_of
from .looking import check_samples
from .resize import resized

Scale = Literal["kind", "each", "all"]


@extractors.register("pixels")
@dataclass(frozen=True)
class PixelFeatures(FeatureSource):
    """Pictures in [-1, 1], and all else less the mean of the real data over its standard deviation; flattened.

    Args:
        size: The side of the square that pictures are brought to first, bicubic with a filter that widens; 0 leaves them.
        scale: What a mean and a standard deviation are of, where samples are no pictures: of each number of a sample on
            its own, or of all together; "kind" is each for points, whose columns may have units of their own, and all
            for arrays.
    """

    size: int = option(0, help="bring pictures to a square of this side first; 0 leaves them as they are", low=0)
    scale: Scale = option("kind", help="standardise what is no picture: each number, all together, or as its kind asks")

    def prepare(self, data: Dataset, progress: Progress | None = None) -> PixelExtractor:
        """See `FeatureSource.prepare`.

        Raises:
            BadOption: A size is given for samples that are no pictures.
        """
        spec = data.spec
        if spec.kind == "image":
            return PixelExtractor(spec, self.size, torch.tensor(127.5), torch.tensor(127.5))
        if self.size:
            raise BadOption(
                f"size: only pictures can be brought to {self.size} x {self.size}, and the data are {spec.kind}"
            )
        each = self.scale == "each" or (self.scale == "kind" and spec.kind == "points")
        data.check()
        std, mean = torch.std_mean(data.x, 0 if each else None, correction=0)
        std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)  # what never changes says nothing, and stays 0
        return PixelExtractor(spec, 0, mean, std)


class PixelExtractor(Extractor):
    """(x - mean) / std, flattened.

    Args:
        spec: What one sample is.
        size: The side that pictures are brought to first; 0 leaves them.
        mean: Shape () or `spec.shape`, float64 or float32.
        std: As `mean`, above 0.
    """

    def __init__(self, spec: Spec, size: int, mean: Tensor, std: Tensor) -> None:
        self.spec = spec
        self.size = size
        self.mean, self.std = mean.to(torch.float32), std.to(torch.float32)
        self.dim = spec.shape[0] * size**2 if size else math.prod(spec.shape)
        self.resize = f"bicubic to {size} x {size}" if size else "none"
        steps = {"name": "pixels", "kind": spec.kind, "shape": list(spec.shape), "resize": self.resize}
        self.hash = digest_of(steps, {"mean": self.mean, "std": self.std})
        self.about = {"name": "pixels", "weights": "none"}

    def __call__(self, x: Tensor) -> Tensor:
        """See `Extractor.__call__`."""
        check_samples(x, self.spec)
        rows = resized(x, self.size, self.size, "bicubic") if self.size else x.to(torch.float32)
        return ((rows - self.mean) / self.std).flatten(1)
