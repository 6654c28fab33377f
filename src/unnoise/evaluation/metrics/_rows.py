"""What every metric asks of its clouds first, and how it goes through them without holding copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError, ShapeError
from ...randomness import address, random_words
from .base import Cloud

_AT_ONCE = 2**20  # values of one block of features in float64: 8 MB


def check(name: str, made: Cloud, real: Cloud, least: int = 2) -> None:
    """Refuses clouds that no number can be worked out of.

    Args:
        name: Of the metric, for messages.
        made: Of the model.
        real: Of the data.
        least: How many samples each side must have.

    Raises:
        ShapeError: The clouds have other dimensions.
        DataError: Features are not finite, or there are fewer samples than `least`.
    """
    if made.features.shape[1] != real.features.shape[1]:
        raise ShapeError(
            f"{name}: expected features of one width, got {made.features.shape[1]} of the made samples and "
            f"{real.features.shape[1]} of the real ones"
        )
    for side, cloud in (("made", made), ("real", real)):
        if len(cloud) < least:
            raise DataError(f"{name} needs at least {least} {side} samples, got {len(cloud)}")
        bad = sum(int((~torch.isfinite(block)).any(1).sum()) for block in blocks(cloud.features))
        if bad:
            raise DataError(f"{name}: {bad} of {len(cloud)} {side} samples have features that are NaN or infinite")


def blocks(features: Tensor, indices: Tensor | None = None) -> Iterator[Tensor]:
    """The features in float64 on the CPU, a few rows at a time, in order.

    Args:
        features: Shape (N, D).
        indices: Which rows, shape (n,); all when left out.
    """
    some = max(1, _AT_ONCE // features.shape[1])
    if indices is None:
        for part in features.split(some):
            yield part.detach().to("cpu", torch.float64)
        return
    for chosen in indices.split(some):
        yield features[chosen].detach().to("cpu", torch.float64)


def whole(features: Tensor, indices: Tensor | None = None) -> Tensor:
    """The features, or some rows of them, in float64 on the CPU."""
    return (features if indices is None else features[indices]).detach().to("cpu", torch.float64)


def shuffled(seed: int, purpose: str, size: int) -> Tensor:
    """0 ... size - 1 in a random order that depends on the seed and the purpose alone, shape (size,), int64."""
    words = random_words(address(seed, purpose), range(1), size)[0]
    return torch.from_numpy(np.argsort(words, kind="stable"))


def at_most(seed: int, purpose: str, size: int, most: int) -> Tensor:
    """The indices of at most `most` of `size` samples, drawn without replacement, ascending."""
    if size <= most:
        return torch.arange(size)
    return shuffled(seed, purpose, size)[:most].sort().values


def both(name: str, made: Cloud, real: Cloud, seed: int, most: int) -> tuple[Tensor, Tensor]:
    """The features of at most `most` samples of each side, drawn by the seed, in float64 on the CPU."""
    return (
        whole(made.features, at_most(seed, f"{name} made", len(made), most)),
        whole(real.features, at_most(seed, f"{name} real", len(real), most)),
    )


def groups(seed: int, purpose: str, size: int, num: int) -> Tensor:
    """Which of `num` groups, as equal in size as can be, each of `size` samples belongs to at random, shape (size,)."""
    return shuffled(seed, purpose, size) % num
