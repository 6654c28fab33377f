"""Times of a run's own against the fixed grid: fitted on starts of their own, measured on those of the benchmark."""

import torch
from _accuracy import FIXED, measure, ours

from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample
from unnoise.samplers.grids import make_grid
from unnoise.tuning.problem import converged
from unnoise.tuning.times import improve

NFES = (5, 8, 10)
TARGET = 0.7
STARTS = 4000
RULES = ((2, 3), (3, 4), (4, 5))


def tuned(problem, nfe):
    """The RMSE of the fixed sampler and of the tuned one at a number of calls, and the tuned sampler."""
    denoiser = problem.denoiser()
    generator = torch.Generator().manual_seed(99)
    z = torch.randn(STARTS, problem.mixture.dim, dtype=torch.float64, generator=generator)
    sigma = float(problem.schedule.sigma(torch.ones((), dtype=torch.float64)))
    reference = converged(denoiser, sigma * z, tolerance=1e-3)
    spec, grid, options = FIXED[nfe]
    begin = make_grid(grid, nfe, problem.schedule, sigma_data=denoiser.sigma_data, **options)
    found = []
    for predictor, corrector in RULES:
        sampler = ArcSampler(predictor, corrector, pivot=spec.get("pivot", 1.0))
        found.append(improve(reference, sampler, begin, rounds=20))
    sampler, times, _ = min(found, key=lambda each: each[2])
    with torch.no_grad():
        end = sample(sampler, denoiser, sigma * problem.z, times)
    fixed = measure(ours(*FIXED[nfe]), problem, problem.z, nfe)[1]
    return fixed, problem.rmse(end), sampler
