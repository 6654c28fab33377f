"""diffusers as methods: its schedulers without noise, on their spacings and grids, over the problem's table of levels."""

import importlib
import math
from functools import partial

import torch
from _peers import Method

SPACINGS = ("leading", "trailing", "linspace")
GRIDS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}


def diffusers(problem):
    """Every scheduler; the training betas are those of the problem, and a VE problem is asked through rescaling."""
    library = importlib.import_module("diffusers")
    library.utils.logging.set_verbosity_error()  # it asks for scale_model_input, which is for networks of its own
    alpha_bars = 1 / (1 + problem.k_table**2)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]])
    betas = (1 - alpha_bars / before).float().numpy()

    def method(name, scheduler, calls=1, shape="vp", betas_needed=True, sigmas=None, **options):
        if betas_needed:
            options["trained_betas"] = betas
        make = partial(getattr(library, scheduler), **options)
        return Method("diffusers", name, partial(_run, make, shape, sigmas), calls)

    for spacing in SPACINGS:
        for to_one in (True, False):
            end = "" if to_one else " last level"
            yield method(f"DDIM {spacing}{end}", "DDIMScheduler", shape="table", clip_sample=False, set_alpha_to_one=to_one, timestep_spacing=spacing)  # fmt: skip # noqa: E501
            for skip in (True, False):
                yield method(f"PNDM {'plms' if skip else 'prk'} {spacing}{end}", "PNDMScheduler", shape="table", skip_prk_steps=skip, set_alpha_to_one=to_one, timestep_spacing=spacing)  # fmt: skip # noqa: E501
    grids = [(spacing, {"timestep_spacing": spacing}) for spacing in SPACINGS]
    grids += [(name, {flag: True}) for name, flag in GRIDS.items()]
    for grid, where in grids:
        yield method(f"Euler {grid}", "EulerDiscreteScheduler", shape="ve", **where)
        yield method(f"Heun {grid}", "HeunDiscreteScheduler", 2, "ve", **where)
        yield method(f"KDPM2 {grid}", "KDPM2DiscreteScheduler", 2, "ve", **where)
        yield method(f"LMS {grid}", "LMSDiscreteScheduler", shape="ve", **where)
    flow = [("flow", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"})]
    lu = [("lu", {"use_lu_lambdas": True})]
    for order in (1, 2, 3):
        for grid, where in grids + flow:
            shape = "flow" if grid == "flow" else "vp"
            yield method(f"DEIS({order}) {grid}", "DEISMultistepScheduler", shape=shape, solver_order=order, **where)
            for solver, x0 in (("bh1", True), ("bh2", True), ("bh2", False)):
                name = f"UniPC({order}) {solver}{'' if x0 else ' noise'} {grid}"
                options = {"solver_order": order, "solver_type": solver, "predict_x0": x0}
                if x0 or grid != "flow":
                    if solver == "bh1" or not x0:  # not finite at sigma = 0
                        options["final_sigmas_type"] = "sigma_min"
                    yield method(name, "UniPCMultistepScheduler", shape=shape, **options, **where)
            options = {"predictor_order": order, "corrector_order": order, "tau_func": lambda t: 0}
            yield method(f"SASolver({order}) tau=0 {grid}", "SASolverScheduler", shape=shape, **options, **where)
        for grid, where in grids + lu + flow:
            shape = "flow" if grid == "flow" else "vp"
            for solver in ("midpoint", "heun") if order == 2 else ("midpoint",):
                name = f"DPM++({order}M) {solver} {grid}"
                options = {"solver_order": order, "solver_type": solver, **where}
                yield method(name, "DPMSolverMultistepScheduler", shape=shape, **options)
                if grid in SPACINGS:
                    yield method(f"{name} last level", "DPMSolverMultistepScheduler", final_sigmas_type="sigma_min", **options)  # fmt: skip # noqa: E501
        for grid, where in [("table", {}), *grids[3:]]:
            yield method(f"DPM++({order}S) {grid}", "DPMSolverSinglestepScheduler", solver_order=order, lower_order_final=True, **where)  # fmt: skip # noqa: E501
    ends = {"sigma_min": problem.k_min, "sigma_max": problem.k_max, "sigma_data": problem.mixture.sigma_data}
    for grid in ("karras", "exponential"):
        yield method(f"EDMEuler {grid}", "EDMEulerScheduler", shape="edm", betas_needed=False, sigma_schedule=grid, **ends)  # fmt: skip # noqa: E501
        for order, solver in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
            yield method(f"EDM DPM++({order}M) {solver} {grid}", "EDMDPMSolverMultistepScheduler", shape="edm", betas_needed=False, sigma_schedule=grid, solver_order=order, solver_type=solver, **ends)  # fmt: skip # noqa: E501

    def uniform(n):
        return (torch.arange(n, 0, -1, dtype=torch.float64) / n * problem.k_max / (1 + problem.k_max)).tolist()

    yield method("FlowMatchEuler uniform", "FlowMatchEulerDiscreteScheduler", shape="flow", betas_needed=False, sigmas=uniform)  # fmt: skip # noqa: E501
    ends = (problem.k_min, problem.k_max)
    for grid in (_angles, _karras, _logarithms):
        yield Method("diffusers", f"IPNDM {grid.__name__[1:]}", partial(_ipndm, library.IPNDMScheduler, grid, ends))


@torch.no_grad()
def _run(make, shape, sigmas, problem, z, n):
    """The library's usual loop; what x is and which scale it has depends on the scheduler.

    The network is asked at the level where the scheduler puts x, also where it would round that to a level of the table.
    """
    scheduler = make()
    scheduler.set_timesteps(n) if sigmas is None else scheduler.set_timesteps(sigmas=sigmas(n))
    times = scheduler.timesteps
    x = z * float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else z
    if shape == "flow":
        x = z * float(scheduler.sigmas[0])
    for t in times:
        alpha, sigma = _scales(scheduler, shape, t)
        eps = problem.noise(x / alpha, sigma / alpha)
        answer = (eps - (x - sigma * eps) / alpha) if shape == "flow" else eps
        if shape == "edm":
            answer = _edm_answer(scheduler, x, sigma, eps)
        x = scheduler.step(answer, t, x, return_dict=False)[0]
    return x


@torch.no_grad()
def _ipndm(scheduler_class, grid, ends, problem, z, n):
    """Its "trained betas" are the sigmas of the run, and its network predicts v."""
    k = torch.cat([grid(n, *ends), torch.zeros(1, dtype=torch.float64)])
    scheduler = scheduler_class(trained_betas=(k / (1 + k**2).sqrt()).tolist())
    scheduler.set_timesteps(n)
    x = float(scheduler.betas[0]) * z
    for i, t in enumerate(scheduler.timesteps):
        alpha, sigma = float(scheduler.alphas[i]), float(scheduler.betas[i])
        eps = problem.noise(x / alpha, sigma / alpha)
        x = scheduler.step(alpha * eps - sigma * (x - sigma * eps) / alpha, t, x, return_dict=False)[0]
    return x


def _angles(n, low, high):
    return torch.tan(torch.linspace(1, 0, n + 1, dtype=torch.float64)[:-1] * math.atan(high))


def _karras(n, low, high):
    return torch.linspace(high ** (1 / 7), low ** (1 / 7), n, dtype=torch.float64) ** 7


def _logarithms(n, low, high):
    return torch.linspace(math.log(high), math.log(low), n, dtype=torch.float64).exp()


def _scales(scheduler, shape, t):
    if shape == "table":
        alpha_bar = float(scheduler.alphas_cumprod[int(t)])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    index = scheduler.step_index
    middle = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order  # KDPM2's second stage
    sigma = float((scheduler.sigmas_interpol if middle else scheduler.sigmas)[0 if index is None else index])
    if shape in ("ve", "edm"):
        return 1.0, sigma
    if shape == "flow":
        return 1 - sigma, sigma
    return 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5


def _edm_answer(scheduler, x, sigma, eps):
    """The network's raw answer F of EDM, from which the scheduler makes D with its own preconditioning."""
    data = scheduler.config.sigma_data
    skip = data**2 / (sigma**2 + data**2)
    out = sigma * data / (sigma**2 + data**2) ** 0.5
    return (x - sigma * eps - skip * x) / out
