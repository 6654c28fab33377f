"""The exact denoiser of a model's own training data in the model's place: the same sampler, times, guidance and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..data.base import Dataset
from ..denoisers.oracle import DatasetOracle
from ..errors import IncompatibleParts
from ..guidance.base import guidances
from ..guidance.helped import Helped
from ..model import Model
from ..process.base import scales
from ..samplers.base import samplers
from ..samplers.grids import make_grid
from ..sampling import Preview, previews

MOST_WORK = 2e9
"""Distances times values that an exact run may take; that is some seconds."""


def exact_previews(model: Model, data: Dataset, recipe: Mapping[str, Any]) -> Iterator[Preview]:
    """What the exact denoiser makes of a recipe, step by step.

    Args:
        model: Whose recipe it is: its process, space and labels are taken.
        data: What it was trained on.
        recipe: As `Model.settle` gives it.

    Raises:
        IncompatibleParts: The rule is helped by another model, or the data is too large for that.
    """
    rule = guidances.build(recipe["guidance"])
    if isinstance(rule, Helped):
        raise IncompatibleParts("an exact denoiser is not helped by another model: choose another guidance rule")
    work = len(data) * math.prod(data.spec.shape) * recipe["n"] * recipe["steps"]
    if work > MOST_WORK:
        raise IncompatibleParts(
            f"the exact denoiser looks at all {len(data):,} samples of the data in each of {recipe['steps']:,} steps, which "
            "takes too long here: ask for fewer samples or steps"
        )
    codec, schedule = model.blueprint.codec, model.denoiser.schedule
    labels = data.labels if model.spec.class_names else None
    oracle = DatasetOracle(codec.encode(data.x), schedule, labels, model.spec.num_classes or None)
    grid = make_grid(recipe["grid"], recipe["steps"], schedule, sigma_data=model.denoiser.sigma_data)
    indices = range(recipe["first"], recipe["first"] + recipe["n"])
    asked = model.asked({**recipe, "prompt": None, "negative_prompt": None})
    return previews(
        oracle, rule, samplers.build(recipe["sampler"]), grid, model.noise(recipe, indices),
        codec.shape(model.spec.shape), codec.decode, asked.condition(),
    )  # fmt: skip


def shrinks(model: Model, times: Sequence[float]) -> list[float]:
    """By what x_t is drawn smaller at each time, so that noisy data is as large as the data itself.

    Args:
        model: Whose process and data it is.
        times: In [0, 1].
    """
    spread, schedule = model.blueprint.sigma_data, model.denoiser.schedule
    both = [scales(schedule, t) for t in times]
    return [spread / math.hypot(alpha * spread, sigma) for alpha, sigma in both]


def centre(model: Model) -> list[float]:
    """What stands still when x_t is drawn smaller: zero in the space of the model, in the units of the data."""
    shape = model.blueprint.codec.shape(model.spec.shape)
    return [float(value) for value in model.blueprint.codec.decode(torch.zeros(1, *shape)).flatten()]
