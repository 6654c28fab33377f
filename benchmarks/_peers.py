"""The other libraries as methods: k-diffusion, azula, flow_matching and smalldiffusion (diffusers is in `_diffusers.py`).

A method takes the starts and a number of steps and gives the end points; it asks the problem's counted denoiser, and starts
at its own first noise level, as that library's users do. What is not installed is left out and named.
"""

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import torch


class Method(NamedTuple):
    """One solver with one grid.

    Args:
        library: Whose it is.
        name: Solver and grid.
        run: run(problem, z, n) -> end points of n steps; ValueError where it has none.
        calls: About how many network calls a step makes: where the search for n begins.
    """

    library: str
    name: str
    run: Callable[[Any, Any, int], Any]
    calls: int = 1


def load_file(name, *parts):
    """One module of an installed package without the package's own imports, which may want what is not installed."""
    package = importlib.util.find_spec(name.split(".")[0])
    if package is None or package.submodule_search_locations is None:
        raise ImportError(f"{name.split('.')[0]} is not installed")
    path = "/".join([package.submodule_search_locations[0], *parts])
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def k_diffusion_sampling():
    """k_diffusion/sampling.py; of its package it needs two small functions, and the package wants torchvision."""
    parent = types.ModuleType("_k_diffusion")
    parent.__path__ = []
    utils = types.ModuleType("_k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    parent.utils = utils
    sys.modules.setdefault("_k_diffusion", parent)
    sys.modules.setdefault("_k_diffusion.utils", utils)
    package = importlib.util.find_spec("k_diffusion")
    if package is None:
        raise ImportError("k_diffusion is not installed")
    path = package.submodule_search_locations[0] + "/sampling.py"
    spec = importlib.util.spec_from_file_location("_k_diffusion.sampling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smalldiffusion_module():
    """smalldiffusion/diffusion.py alone: the package wants torchvision for its data sets."""
    return load_file("smalldiffusion.diffusion", "diffusion.py")


# --- k-diffusion


def k_diffusion(problem):
    """Every sampler without noise on Karras's, exponential, polynomial and the model's own grid."""
    sampling = k_diffusion_sampling()
    ends = (problem.k_min, problem.k_max)

    def table(n):
        place = torch.linspace(999, 0, n, dtype=torch.float64)
        low = place.floor().long().clamp(max=998)
        levels = problem.k_table.log()
        return torch.cat(
            [torch.lerp(levels[low], levels[low + 1], place - low).exp(), torch.zeros(1, dtype=torch.float64)]
        )

    grids = {
        "model": table,
        "karras": lambda n: sampling.get_sigmas_karras(n, *ends),
        "karras rho=3": lambda n: sampling.get_sigmas_karras(n, *ends, rho=3.0),
        "exponential": lambda n: sampling.get_sigmas_exponential(n, *ends),
        "polyexponential rho=1.5": lambda n: sampling.get_sigmas_polyexponential(n, *ends, rho=1.5),
    }
    solvers = {
        "euler": (sampling.sample_euler, 1),
        "heun": (sampling.sample_heun, 2),
        "dpm_2": (sampling.sample_dpm_2, 2),
        "dpmpp_2m": (sampling.sample_dpmpp_2m, 1),
        "dpmpp_2s": (partial(sampling.sample_dpmpp_2s_ancestral, eta=0.0), 2),
        "dpmpp_sde eta=0": (partial(sampling.sample_dpmpp_sde, eta=0.0), 2),
        "dpmpp_2m_sde heun eta=0": (partial(sampling.sample_dpmpp_2m_sde, eta=0.0, solver_type="heun"), 1),
        "dpmpp_2m_sde midpoint eta=0": (partial(sampling.sample_dpmpp_2m_sde, eta=0.0, solver_type="midpoint"), 1),
        "dpmpp_3m_sde eta=0": (partial(sampling.sample_dpmpp_3m_sde, eta=0.0), 1),
    }
    for order in (2, 3, 4):
        solvers[f"lms({order})"] = (partial(sampling.sample_lms, order=order), 1)

    def run(solver, grid, problem, z, n):
        sigmas = grid(n).double()
        return solver(_per_sample(problem), float(sigmas[0]) * z, sigmas, disable=True)

    def fast(problem, z, n):
        return sampling.sample_dpm_fast(_per_sample(problem), ends[1] * z, *ends, n, disable=True)

    for name, (solver, calls) in solvers.items():
        for grid_name, grid in grids.items():
            yield Method("k-diffusion", f"{name} {grid_name}", partial(run, solver, grid), calls)
    yield Method("k-diffusion", "dpm_fast", fast)


def _per_sample(problem):
    return lambda y, sigma, **_: problem.denoised(y, sigma.flatten()[0])


# --- azula


def azula(problem):
    """Every sampler without noise under every schedule, brought to the problem's noise levels."""
    noise, sample = importlib.import_module("azula.noise"), importlib.import_module("azula.sample")
    solvers = {"Euler": (sample.EulerSampler, 1), "Heun": (sample.HeunSampler, 2), "DDIM": (sample.DDIMSampler, 1)}
    for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (1, 2, 3):
            solvers[f"{kind}({order})"] = (partial(getattr(sample, f"{kind}Sampler"), order=order), 1)
    schedules = {}
    tops = [problem.k_max] if problem.k_max < 1500 else [problem.k_max, 1000.0]
    for top in tops:
        for low in sorted({1e-3, problem.k_min}):
            at = f"{low:.2g}..{top:.4g}"
            schedules[f"VE {at}"] = noise.VESchedule(low, top)
            schedules[f"VP {at}"] = noise.VPSchedule(1 / math.hypot(1, top), low)
            schedules[f"Cosine {at}"] = noise.CosineSchedule(1 / math.hypot(1, top), low)
            schedules[f"Rectified {at}"] = noise.RectifiedSchedule(1 / top, low)
            schedules[f"Decay {at}"] = noise.DecaySchedule(1 / top, low)
            schedules[f"Decay 0.01 {at}"] = noise.DecaySchedule(1 / top, low, gamma=0.01)

    def run(solver, schedule, problem, z, n):
        def denoiser(x_t, t):
            alpha, sigma = (float(v) for v in schedule(t))
            return types.SimpleNamespace(mean=problem.denoised(x_t / alpha, sigma / alpha))

        denoiser.schedule = schedule
        sampler = solver(denoiser, steps=n, silent=True, dtype=torch.float64)
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return sampler(schedule(ends[0])[1] * z) / schedule(ends[1])[0]

    for name, (solver, calls) in solvers.items():
        for schedule_name, schedule in schedules.items():
            yield Method("azula", f"{name} {schedule_name}", partial(run, solver, schedule), calls)


# --- flow_matching


def flow_matching(problem):
    """ODESolver's fixed-step methods on the flow-matching path (optimal transport) and on the cosine path."""
    solver_class = importlib.import_module("flow_matching.solver").ODESolver
    end = torch.ones(1, dtype=torch.float64)

    def linear(t):  # alpha, sigma and their rates; time runs from noise to data
        return t, 1 - t, 1.0, -1.0

    def cosine(t):
        angle = math.pi / 2 * t
        return math.sin(angle), math.cos(angle), math.pi / 2 * math.cos(angle), -math.pi / 2 * math.sin(angle)

    paths = {
        "": (linear, lambda k: 1 / (1 + k)),
        " cosine path": (cosine, lambda k: 2 / math.pi * math.atan2(1, k)),
    }

    def uniform(n, time_of):
        return torch.linspace(time_of(problem.k_max), 1, n + 1, dtype=torch.float64)

    def edm(n, time_of):  # the grid of the library's image example: EDM's, in the path's time
        high, low = problem.k_max ** (1 / 7), problem.k_min ** (1 / 7)
        k = (high + (low - high) * torch.linspace(0, 1, n, dtype=torch.float64)) ** 7
        return torch.cat([torch.tensor([time_of(float(v)) for v in k], dtype=torch.float64), end])

    def run(method, path, grid, problem, z, n):
        scale, time_of = path

        def velocity(x, t):
            alpha, sigma, alpha_dot, sigma_dot = scale(min(float(t), 1.0))
            sigma = max(sigma, 0.0)
            y, k = x / alpha, sigma / alpha
            eps = problem.noise(y, k)
            return alpha_dot * (y - k * eps) + sigma_dot * eps

        times = grid(n, time_of)
        start = scale(float(times[0]))[1] * z
        return solver_class(velocity).sample(start, step_size=None, method=method, time_grid=times)

    for method, calls in (("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)):
        for path_name, path in paths.items():
            for grid in (uniform, edm):
                name = f"{method} {grid.__name__}{path_name}"
                yield Method("flow_matching", name, partial(run, method, path, grid), calls)


# --- smalldiffusion


def smalldiffusion(problem):
    """Its one sampler, plain and accelerated, on the training table, and on its log-linear grid."""
    module = smalldiffusion_module()
    place = types.SimpleNamespace(device="cpu")
    schedules = {
        "training table": module.Schedule(problem.k_table),
        "LogLinear": module.ScheduleLogLinear(1000, problem.k_min, problem.k_max),
        "LogLinear 0.02..10": module.ScheduleLogLinear(1000),
    }

    def run(gam, schedule, problem, z, n):
        model = types.SimpleNamespace(
            eval=lambda: None,
            rand_input=lambda batch: torch.zeros(batch, z.shape[1], dtype=z.dtype),
            predict_eps_cfg=lambda x, sigma, cond, scale: problem.noise(x, sigma),
        )
        sigmas = schedule.sample_sigmas(n).double()
        for found in module.samples(model, sigmas, gam=gam, xt=float(sigmas[0]) * z, accelerator=place):
            end = found
        return end

    for gam in (1.0, 1.5, 2.0):
        for name, schedule in schedules.items():
            yield Method("smalldiffusion", f"gam={gam} {name}", partial(run, gam, schedule))


LIBRARIES = {
    "diffusers": lambda problem: importlib.import_module("_diffusers").diffusers(problem),
    "k-diffusion": k_diffusion,
    "azula": azula,
    "flow_matching": flow_matching,
    "smalldiffusion": smalldiffusion,
}
DISTRIBUTIONS = {name: name.replace("-", "_") for name in LIBRARIES}


def installed():
    """The libraries that can be used, with their versions, and of the others why not."""
    found, missing = {}, {}
    imports = {
        "diffusers": lambda: importlib.import_module("diffusers").DDIMScheduler,
        "k-diffusion": k_diffusion_sampling,
        "azula": lambda: importlib.import_module("azula.sample"),
        "flow_matching": lambda: importlib.import_module("flow_matching.solver"),
        "smalldiffusion": smalldiffusion_module,
    }
    for name, load in imports.items():
        try:
            load()
            found[name] = version(DISTRIBUTIONS[name])
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error).splitlines()[0]
    return found, missing
