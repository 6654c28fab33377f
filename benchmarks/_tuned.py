"""Times and weights of a run's own against the fixed grid: fitted on starts of their own, measured on those of the benchmark."""

import torch
from _accuracy import FIXED, measure, ours

from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample
from unnoise.samplers.grids import make_grid
from unnoise.tuning.problem import Problem, converged
from unnoise.tuning.times import improve
from unnoise.tuning.weights import fit_weights

NFES = (5, 8, 10)
TARGET = 0.7
STARTS, CHOOSING = 20_000, 6000
HARDEST, OTHERS = 1200, 300
RULES = ((2, 3), (3, 4), (4, 5))


def tuned(problem, nfe):
    """The RMSE of the fixed sampler and of the tuned one at a number of calls, and the tuned sampler.

    Of the starts that tuning has, some are fitted to and the others choose. Weights are fitted to those that are hardest to bring
    home and to a few others: nearly all of the rest end right whatever is done.
    """
    denoiser = problem.denoiser()
    generator = torch.Generator().manual_seed(99)
    z = torch.randn(STARTS, problem.mixture.dim, dtype=torch.float64, generator=generator)
    sigma = float(problem.schedule.sigma(torch.ones((), dtype=torch.float64)))
    reference = converged(denoiser, sigma * z, tolerance=1e-3)
    choosing, fit = reference.part(0, CHOOSING), reference.part(CHOOSING, STARTS)
    spec, grid, options = FIXED[nfe]
    begin = make_grid(grid, nfe, problem.schedule, sigma_data=denoiser.sigma_data, **options)
    rules = [ArcSampler(predictor, corrector, pivot=spec["pivot"]) for predictor, corrector in RULES]
    hardest = _hardest(fit, [*rules, ArcSampler(1, 0, pivot=spec["pivot"])], begin)
    found = [(rule, begin) for rule in rules]
    few = fit.part(0, HARDEST + OTHERS)
    found += [improve(few, rule, begin, rounds=15)[:2] for rule in rules]
    for predictor, corrector in sorted({RULES[0], (spec["predictor"], spec["corrector"])}):
        found += fit_weights(hardest, ArcSampler(predictor, corrector, pivot=spec["pivot"]), begin)
    sampler, times = min(found, key=lambda each: choosing.distance(*each))
    with torch.no_grad():
        end = sample(sampler, denoiser, sigma * problem.z, times)
    fixed = measure(ours(*FIXED[nfe]), problem, problem.z, nfe)[1]
    return fixed, problem.rmse(end), sampler


def _hardest(fit, samplers, grid):
    """Those that any of the samplers leaves farthest from their ends, and some of the others."""
    worst = torch.stack([(fit.run(sampler, grid) - fit.end).square().sum(1) for sampler in samplers]).amax(0)
    chosen = torch.cat([worst.argsort(descending=True)[:HARDEST], torch.arange(OTHERS)])
    return Problem(fit.denoiser, fit.start[chosen], fit.end[chosen], None, fit.uncertainty, fit.steps)
