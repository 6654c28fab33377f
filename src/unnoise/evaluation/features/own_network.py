"""The network that learns to tell the samples of one data set apart: convolutions, or layers for flat samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.convolution import CONVOLUTIONS

WIDTHS = 32, 64, 128, 192
HIDDEN = 256  # of the layers for flat samples
NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
POOLS: dict[int, type[nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d]] = {
    1: nn.MaxPool1d,
    2: nn.MaxPool2d,
    3: nn.MaxPool3d,
}
PLACES = {1: 256, 2: 16, 3: 8}  # the most that the first layer leaves along one dimension
POOL = {1: 4, 2: 2, 3: 2}


def strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """What the first layer divides each dimension by: the least power of 2 that leaves at most `PLACES`."""
    most = PLACES[len(sizes)]
    return tuple(2 ** max(0, math.ceil(math.log2(size / most))) for size in sizes)


def _pool(dims: int, sizes: Sequence[int]) -> nn.Module:
    step = tuple(min(POOL[dims], size) for size in sizes)
    return POOLS[dims](step)


def _block(dims: int, channels: int, out_channels: int) -> nn.Sequential:
    layer = CONVOLUTIONS[dims](channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(layer, NORMS[dims](out_channels), nn.GELU())


class Convolutions(nn.Module):
    """Four convolutions; what it says of a sample are the means of the second and of the last layer's maps.

    The second layer sees strokes and textures, which blur and noise change; the last sees what they make up.

    Args:
        shape: Of one sample, channels first, with one, two or three dimensions of places.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        dims = len(shape) - 1
        steps: Any = strides(shape[1:])  # of a length that the type of one convolution knows, and not that of another
        kernel: Any = tuple(2 * step if step > 1 else 3 for step in steps)
        padding: Any = tuple(step // 2 if step > 1 else 1 for step in steps)
        stem = CONVOLUTIONS[dims](shape[0], WIDTHS[0], kernel, stride=steps, padding=padding, bias=False)
        self.stem = nn.Sequential(stem, NORMS[dims](WIDTHS[0]), nn.GELU())
        sizes = [size // step for size, step in zip(shape[1:], steps, strict=True)]
        self.strokes = _block(dims, WIDTHS[0], WIDTHS[1])
        first = _pool(dims, sizes)
        sizes = [size // min(POOL[dims], size) for size in sizes]
        self.parts = nn.Sequential(first, _block(dims, WIDTHS[1], WIDTHS[2]))
        self.whole = nn.Sequential(_pool(dims, sizes), _block(dims, WIDTHS[2], WIDTHS[3]))
        self.dim = WIDTHS[1] + WIDTHS[3]

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each of the four layers says, shapes (B, channels, places), for x of shape (B, *shape)."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a processor
        stem = self.stem(x)
        strokes = self.strokes(stem)
        parts = self.parts(strokes)
        return stem, strokes, parts, self.whole(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, dim) for x of shape (B, *shape)."""
        _, strokes, _, whole = self.maps(x)  # (B, 64, places), (B, 192, fewer places)
        return torch.cat([strokes.flatten(2).mean(2), whole.flatten(2).mean(2)], dim=1)


class Layers(nn.Module):
    """Three layers for flat samples.

    Args:
        shape: Of one sample, which is flattened.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        size = math.prod(shape)
        for out in (HIDDEN, HIDDEN, HIDDEN // 2):
            layers += [nn.Linear(size, out, bias=False), nn.BatchNorm1d(out), nn.GELU()]
            size = out
        self.layers = nn.Sequential(*layers)
        self.dim = size

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, dim) for x of shape (B, *shape)."""
        return self.layers(x)


class OwnNetwork(nn.Module):
    """What it says of a sample, and a head that reads labels off it.

    Samples of two, three or four dimensions are convolved over all but the first, which are channels; all others are
    flattened. Batch normalisation stands on the training data's own moments outside of training, so that a sample's
    features do not depend on what stands beside it.

    Args:
        shape: Of one sample as the network sees it.
        num_classes: How many labels there are; 0 leaves the head out.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.shape = shape
        convolved = 2 <= len(shape) <= 4 and min(shape[1:]) >= 1
        self.trunk: Convolutions | Layers = Convolutions(shape) if convolved else Layers(shape)
        self.dim = self.trunk.dim
        self.head = nn.Linear(self.dim, num_classes) if num_classes else None
        each = (shape[0], *[1] * (len(shape) - 1)) if convolved else shape
        self.register_buffer("mean", torch.zeros(each))
        self.register_buffer("std", torch.ones(each))
        self.register_buffer("centre", torch.zeros(self.dim))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """What is said of each sample, before it is scaled, shape (B, dim)."""
        return self.trunk((x - self.mean) / self.std)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each layer says of each place, shapes (B, channels, places); flat samples have none."""
        return self.trunk.maps((x - self.mean) / self.std) if isinstance(self.trunk, Convolutions) else ()

    def features(self, x: Tensor) -> Tensor:
        """What is said of each sample, of mean 0 and mean variance 1 over the training data, shape (B, dim)."""
        return (self(x) - self.centre) / self.spread

    def logits(self, features: Tensor) -> Tensor:
        """How well each label fits, for features as `features` gives them, shape (B, num_classes)."""
        assert self.head is not None
        return self.head(features * self.spread + self.centre)
