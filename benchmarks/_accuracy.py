"""Error of the end point against the number of network calls: every configuration of every peer, and unnoise."""

import logging
import math
import warnings
from collections.abc import Iterable

import torch
from _peers import LIBRARIES, Method
from _problems import MIXTURES, SCHEDULES, Problem

from unnoise.errors import UnnoiseError
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.grids import GRIDS, make_grid

NFES = (5, 8, 10, 15, 20, 30, 50)
TARGETS = {5: 1.0, 8: 1.0, 10: 0.9, 15: 0.7, 20: 0.7, 30: 0.3, 50: 0.3}
FINALISTS = 8
SCREEN = 1000


def _arc(predictor, corrector, sampler_pivot, **options):
    return {"name": "arc", "predictor": predictor, "corrector": corrector, "pivot": sampler_pivot}, "angle", options


# What unnoise takes at each number of network calls: the sampler, the grid, and the grid's options; one for all problems, found
# on them by random search, as the best configuration of a peer is found on them among all of its own.
FIXED = {
    5: _arc(2, 3, 1.05, pivot=1.03, log_share=0.055, last=0.2),
    8: _arc(3, 4, 1.457, pivot=1.783, log_share=0.029, last=0.0493),
    10: _arc(4, 5, 4.0, pivot=2.0, log_share=0.05, last=0.05),
    15: _arc(4, 5, 3.585, pivot=2.052, log_share=0.035, last=0.0202),
    20: _arc(4, 6, 1.395, pivot=2.106, log_share=0.00815, last=0.05305),
    30: _arc(5, 5, 3.8815, pivot=1.6847, log_share=0.0335, last=0.00694),
    50: _arc(5, 5, 3.007, pivot=1.795, log_share=0.04, last=0.00157),
}


def problems(starts):
    """Both mixtures under the three schedules."""
    return [Problem(mixture, schedule, starts) for mixture in MIXTURES for schedule in SCHEDULES]


def measure(method, problem, z, nfe):
    """(calls, RMSE) of a method's run with the most steps that need at most `nfe` calls, or None where it has none."""
    most = nfe if method.calls == 1 else math.ceil(nfe / method.calls) + 1
    for steps in range(most, 0, -1):
        calls, end = _attempt(method, problem, z, steps)
        if 0 < calls <= nfe:
            return calls, problem.rmse(end)
    return None


def _attempt(method, problem, z, steps):
    problem.calls = 0
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            end = method.run(problem, z, steps)
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError, AssertionError, UnnoiseError) as error:
        logging.getLogger(__name__).debug("%s %s: %r", method.library, method.name, error)
        return 0, None
    return problem.calls, end


def best(methods: Iterable[Method], problem, nfes=NFES):
    """For each number of calls the methods by RMSE: all on the first starts, then the best of each library on all.

    Returns:
        {nfe: [{"library", "name", "calls", "rmse"}, ...]}, the best of each library first, best library first.
    """
    table = {nfe: {} for nfe in nfes}
    for method in methods:
        for nfe in nfes:
            found = measure(method, problem, problem.z[:SCREEN], nfe)
            if found is not None:
                table[nfe].setdefault(method.library, []).append((found[1], method))
    result = {}
    for nfe in nfes:
        rows = []
        for library, screened in table[nfe].items():
            screened.sort(key=lambda pair: pair[0])
            finals = [(measure(method, problem, problem.z, nfe), method) for _, method in screened[:FINALISTS]]
            (calls, rmse), method = min(finals, key=lambda pair: pair[0][1])
            rows.append({"library": library, "name": method.name, "calls": calls, "rmse": rmse})
        result[nfe] = sorted(rows, key=lambda row: row["rmse"])
    return _at_most(result)


def _at_most(result):
    """Fewer calls are allowed: a library whose best was better with fewer takes that row."""
    kept = {}
    for nfe in sorted(result):
        for row in result[nfe]:
            if row["library"] not in kept or row["rmse"] < kept[row["library"]]["rmse"]:
                kept[row["library"]] = row
        result[nfe] = sorted(kept.values(), key=lambda row: row["rmse"])
    return result


def ours(spec, grid, options, name=None):
    """unnoise's sampler on one of its grids, as a method."""
    sampler = samplers.build(spec)
    label = name or f"{spec if isinstance(spec, str) else spec['name']} {grid}"

    def run(problem, z, n):
        times = make_grid(grid, n, problem.schedule, sigma_data=problem.mixture.sigma_data, **options)
        start = float(problem.schedule.sigma(times[0])) * z
        return sample(sampler, problem.denoiser(), start, times)

    return Method("unnoise", label, run, sampler.evaluations)


def zoo():
    """Every registered sampler that needs no noise, as it is by default, on every grid."""
    for name in samplers:
        for grid in GRIDS:
            method = ours({"name": name}, grid, {})
            if not samplers.build({"name": name}).stochastic:
                yield method


def peers(problem, libraries):
    """The methods of the libraries that are there."""
    for library in libraries:
        yield from LIBRARIES[library](problem)
