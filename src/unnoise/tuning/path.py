r"""Where the exact flow leads on the way: the converged trajectories at any time.

The ends say little of a solver where data falls apart into modes: nearly all starts end right whatever it does on the way, and
the few at the edges end far off. On the way every start says something.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..process.base import Schedule
from ..samplers.arc import ArcSampler
from ..samplers.base import trajectory
from ..samplers.coordinates import arc
from ..samplers.grids import make_grid
from .problem import Problem


@dataclass(frozen=True)
class Path:
    """Trajectories on the arc, known at some angles; between them the cubics through their places and slopes (Hermite).

    Args:
        schedule: Of the model.
        spread: The standard deviation of its data, s.
        angles: atan2(sigma, alpha s), falling, shape (m,).
        places: y = x / r, shape (m, B, ...).
        slopes: dy / dangle, shape (m, B, ...).
    """

    schedule: Schedule
    spread: float
    angles: tuple[float, ...]
    places: Tensor
    slopes: Tensor

    def at(self, t: float) -> Tensor:
        """y at time t, shape (B, ...)."""
        angle = arc(self.schedule, t, self.spread).k
        right = next((i for i, known in enumerate(self.angles) if known <= angle), len(self.angles) - 1)
        right = max(right, 1)
        h = self.angles[right] - self.angles[right - 1]
        u = (angle - self.angles[right - 1]) / h
        begin, end = self.places[right - 1], self.places[right]
        found = (1 + 2 * u) * (1 - u) ** 2 * begin + u * u * (3 - 2 * u) * end
        found.add_(self.slopes[right - 1], alpha=h * u * (1 - u) ** 2)
        return found.add_(self.slopes[right], alpha=-h * u * u * (1 - u))


def follow(problem: Problem, steps: int = 128) -> Path:
    """The converged trajectories of a problem.

    Args:
        problem: Whose starts.
        steps: At how many times they are kept, from t = 1 down to the last above 0.
    """
    denoiser, spread = problem.denoiser, problem.denoiser.sigma_data
    grid = make_grid("angle", steps, denoiser.schedule, sigma_data=spread)
    angles, places, slopes = [], [], []
    x = problem.start
    for t, stepped in zip(
        grid.tolist(), trajectory(ArcSampler(3, 4), denoiser, x, grid, cond=problem.cond), strict=False
    ):
        here = arc(denoiser.schedule, t, spread)
        angles.append(here.k)
        places.append(x / here.scale)
        slopes.append(here.from_x * x + here.from_denoised * stepped.denoised)
        x = stepped.x
    return Path(denoiser.schedule, spread, tuple(angles), torch.stack(places), torch.stack(slopes))
