"""What training asks of each sample about what stands where: a function of seed and position."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..conditioning.regions import PLANES, region_network
from ..data.augmentation import Augmentation
from ..data.base import Dataset
from ..denoisers.base import Condition, Denoiser
from ..objectives.mse import preconditioned
from ..randomness import address, uniform

APART = 0.1
"""Share of the samples that are trained without their boxes, and of those without their map, though the rest is asked for."""


def whole_planes(denoiser: Denoiser, data: Dataset) -> Condition:
    """All that stands where in some samples, as a condition; nothing where the network sees none of it.

    Args:
        denoiser: Whose network may see it.
        data: The samples.
    """
    network = region_network(preconditioned(denoiser).network)
    return {} if network is None or data.regions is None else {PLANES: network.encode(data.regions)}


def drawn_planes(
    denoiser: Denoiser, data: Dataset, augmentation: Augmentation, seed: int, positions: NDArray[np.int64]
) -> Condition:
    """What some samples of a run are trained to answer about what stands where in them.

    Args:
        denoiser: As `whole_planes`.
        data: The samples as they are.
        augmentation: What is done to them.
        seed: Of the run.
        positions: Of the run, one for each sample.
    """
    network = region_network(preconditioned(denoiser).network)
    if network is None or data.regions is None:
        return {}
    height, width = (data.x.shape[-2], data.x.shape[-1])
    planes = network.encode(augmentation.regions(data.regions, seed, positions, (height, width)))
    boxes, maps = (
        torch.from_numpy(uniform(address(seed, f"{name} apart"), positions)[:, 0] < APART) for name in ("boxes", "map")
    )
    return {PLANES: network.asks.without(planes, boxes, maps)}
