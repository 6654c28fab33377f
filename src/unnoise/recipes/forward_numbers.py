"""The forward process as numbers, for a figure that mixes x_t by itself: scales at every level, clean data, one noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.base import Dataset
from ..errors import BadOption
from ..process.base import Schedule
from ..randomness import NoiseSource
from .gallery import choose, codec_for

LEVELS = 1000


@dataclass(frozen=True)
class Levels:
    """A schedule at evenly spaced times: level k of n stands at t = (k + 1) / n.

    Args:
        alpha: The scale of the signal at every level.
        sigma: The scale of the noise.
        log_snr: ln(alpha^2 / sigma^2); None where no signal is left.
    """

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float | None, ...]


def levels(schedule: Schedule, count: int = LEVELS) -> Levels:
    """What a schedule says at `count` levels, whatever the number of its own.

    Args:
        schedule: Alpha and sigma.
        count: At least 1.

    Raises:
        BadOption: There are no levels.
    """
    if count < 1:
        raise BadOption(f"count: must be at least 1, got {count}")
    t = (torch.arange(count, dtype=torch.float64) + 1) / count
    alpha, sigma, ratio = (each.tolist() for each in (schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)))
    return Levels(tuple(alpha), tuple(sigma), tuple(each if math.isfinite(each) else None for each in ratio))


def clean_and_noise(dataset: Dataset, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some samples in the space where noise is added, and the noise that is.

    Args:
        dataset: Points or pictures.
        n: How many samples, at most as many as there are.
        seed: Of the noise.

    Returns:
        x_0 and eps, shape (n, ...) each, float32.
    """
    some = choose(dataset, n)
    x_0 = codec_for(dataset).encode(dataset.x[some])
    return x_0, NoiseSource(seed, some.tolist()).start(x_0.shape[1:], x_0.dtype)


def noise_like(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Standard normal noise for one sample, float32: that of sample 0 of a seed.

    Args:
        shape: Of the sample.
        seed: Which.
    """
    return NoiseSource(seed, [0]).start(shape, torch.float32)[0]
