r"""Image to image (SDEdit): part of the way to noise, and back.

A picture x_0 is noised to a time s, its strength, by the process that the model has learned to undo,

.. math:: x_s = \alpha(s) x_0 + \sigma(s) \varepsilon,

with the noise :math:`\varepsilon` that the sample has anyway, and sampled from there. So the strength is a noise level and nothing
else, whatever sampler, grid and number of steps are. At 0 the picture comes back as it is, and no network is asked. At 1 the
picture counts for :math:`\alpha(1)`: where the process ends in pure noise, not at all, so that the sample is the one that the
seed makes without a picture; elsewhere by the little that is left of data at t = 1, as it was in training.

Steps are steps that are made: 20 steps from strength 0.5 are 20, each half as long, where others would make 10.

References:
    SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations (Meng et al., 2022), Algorithm 1,
    https://arxiv.org/abs/2108.01073
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.base import Spec
from ..errors import BadOption
from ..options import Checked, option
from ..process.base import Schedule
from ..samplers.grids import GridSpec, discrete, explicit, make_grid
from .beginnings import beginning_texts, read_beginning

LEVELS = ("trailing", "leading", "linspace")
"""The grids of the levels of a discrete chain."""


@dataclass(frozen=True)
class Edit(Checked):
    """How much of a picture is made anew."""

    strength: float = option(
        0.6, help="at which time a given picture begins: 0 leaves it as it is, 1 is noise", low=0.0, high=1.0
    )


def plain_edit(image: Any, strength: float | None, grid: GridSpec, spec: Spec, n: int) -> dict[str, Any]:
    """What samples begin from and its strength, checked and complete, as plain values by name; nothing where it is noise alone.

    Args:
        image: As `beginning_texts` takes it; None for noise.
        strength: In [0, 1]; where None, that of `Edit`, or where the times of the grid begin.
        grid: At which times.
        spec: What a sample is.
        n: How many there are.

    Raises:
        BadOption: The image or the strength is none, there is only a strength, or the grid says another one.
        DataError: A picture cannot be read.
    """
    if image is None:
        if strength is not None:
            raise BadOption("strength: says how much of a picture is made anew, so give the picture, as image")
        return {}
    if isinstance(grid, Mapping) and "start" in grid:
        raise BadOption("grid.start: where an edited picture begins is what strength says: leave it out")
    known = None if isinstance(grid, (str, Mapping)) else float(explicit(grid)[0])
    if known is not None and strength not in (None, known):
        raise BadOption(
            f"strength: the times of the grid begin at {known:g}, so leave it out, or say so; got {strength}"
        )
    if strength is None:
        strength = Edit().strength if known is None else known
    return {"strength": Edit(strength).strength, "image": beginning_texts(image, spec, n)}


def grid_of(request: Mapping[str, Any], schedule: Schedule, sigma_data: float) -> Tensor:
    """The times of a run: those of the grid, or, where it begins at a strength above 0, of the same law from there on.

    The levels of a discrete chain are taken from those up to the strength, rounded to one of them.

    Args:
        request: Its grid, steps, and strength if it has one.
        schedule: Of the model.
        sigma_data: The standard deviation of the encoded data.

    Returns:
        Shape (steps + 1,), float64.

    Raises:
        UnknownName: There is no such grid.
        BadOption: It cannot be made.
    """
    spec, steps, strength = request["grid"], request["steps"], request.get("strength") or 1.0
    name = spec.get("name") if isinstance(spec, Mapping) else spec
    if strength == 1 or not isinstance(name, str):
        return make_grid(spec, steps, schedule, sigma_data=sigma_data)
    if name not in LEVELS:
        return make_grid(spec, steps, schedule, sigma_data=sigma_data, start=strength)
    make_grid(spec, 1, schedule)  # refuses a schedule without levels, and options
    assert schedule.num_steps
    levels = max(1, round(strength * schedule.num_steps))
    if steps > levels:
        raise BadOption(f"steps: {levels} levels of the chain lie at or below strength {strength:g}, got {steps} steps")
    counts = (discrete(steps, levels, name) * levels).round()  # type: ignore[arg-type]
    return counts / schedule.num_steps


def begun(request: Mapping[str, Any], indices: Iterable[int], spec: Spec) -> tuple[Tensor, Tensor] | None:
    """What some samples of a request begin from; None where it is noise alone.

    Args:
        request: Its image, and the number of its first sample.
        indices: Of the samples.
        spec: What a sample is.

    Returns:
        The different ones, shape (k, *shape), and which of them each sample begins from, shape (n,).
    """
    texts = request.get("image")
    if texts is None:
        return None
    told = [texts if isinstance(texts, str) else texts[index - request["first"]] for index in indices]
    different = list(dict.fromkeys(told))
    rows = torch.tensor([different.index(text) for text in told])
    return torch.stack([read_beginning(text, spec) for text in different]), rows
