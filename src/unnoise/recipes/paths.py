"""The ways that samples take from noise to data: along the probability flow, and with the reverse SDE."""

from __future__ import annotations

import math

import torch
from PIL import Image

from ..data.base import Dataset
from ..errors import DataError
from ..model import Model
from ..pictures.paths import paths
from ..pictures.strip import strip
from ..process.base import scales
from ..randomness import NoiseSource
from ..samplers import grids
from ..samplers.base import Sampler, trajectory
from ..samplers.euler_maruyama import EulerMaruyamaSampler
from ..samplers.heun import HeunSampler
from .gallery import limits_of

MEMBERS, STEPS = 5, 300


def flow_and_sde(
    model: Model, data: Dataset | None = None, n: int = MEMBERS, steps: int = STEPS, seed: int = 0, size: int = 300
) -> Image.Image:
    """The same starts under the same model, once along the ODE and once with the SDE, which draws noise on its way.

    Noisy data is drawn at the size of the data, so that the part of the way on which noise is all there is stays in sight.

    Args:
        model: Of points in the plane.
        data: What the model was trained on, drawn faintly.
        n: How many samples.
        steps: From noise to data; the SDE wants a few hundred.
        seed: Of the starts and of the noise on the way.
        size: Width of a picture, in pixels.

    Raises:
        DataError: The model does not make points in the plane.
    """
    if model.spec.kind != "points" or tuple(model.spec.shape) != (2,):
        made = f"{model.spec.kind} of shape {model.spec.shape}"
        raise DataError(f"paths need a model of points in the plane, this one makes {made}")
    ways = {
        "probability flow (ODE)\nthe start decides": HeunSampler(),
        "reverse SDE\nnoise on the way": EulerMaruyamaSampler(),
    }
    background = None if data is None else data.x.double()
    walked = [_walk(model, sampler, n, steps, seed) for sampler in ways.values()]
    shown = torch.cat([each.flatten(0, 1) for each in walked] + ([] if background is None else [background]))
    limits = limits_of(model.spec, shown)
    return strip([paths(each, size, limits, background=background) for each in walked], list(ways))


def _walk(model: Model, sampler: Sampler, n: int, steps: int, seed: int) -> torch.Tensor:
    """Where the samples are at every time of a run, at the size of the data, shape (steps + 1, n, 2)."""
    schedule, sigma_data = model.denoiser.schedule, model.blueprint.sigma_data
    noise, grid = NoiseSource(seed, range(n)), grids.log_snr(steps, schedule)
    x = noise.start(tuple(model.spec.shape)) * scales(schedule, float(grid[0]))[1]
    places = [x, *(stepped.x for stepped in trajectory(sampler, model.denoiser, x, grid, noise=noise))]
    shrunk = []
    for at, place in zip(grid.tolist(), places, strict=True):
        alpha, sigma = scales(schedule, at)
        shrunk.append(
            model.blueprint.codec.decode(place.double() * (sigma_data / math.hypot(alpha * sigma_data, sigma)))
        )
    return torch.stack(shrunk)
