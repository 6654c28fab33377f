"""What a step costs besides the network: every library's loop around a denoiser that is one multiplication.

A contender is prepared outside the timing, as its users do before the loop: grid, scheduler, wrapper. What is timed is the
loop itself. All of a kind run in turns within one process, so that whatever else the machine does hits all of them.
"""

import gc
import importlib
import statistics
import time
from functools import partial
from types import SimpleNamespace

import torch
from _peers import k_diffusion_sampling, smalldiffusion_module

from unnoise.denoisers.base import Denoiser
from unnoise.process.linear import LinearSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.grids import make_grid

SHAPES = ((64, 2), (1, 4, 64, 64), (16, 3, 32, 32))
KINDS = ("euler", "ddim", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "lms", "arc", "ddpm", "ancestral")
RANGE = (0.01, 157.0)


class _Trivial(Denoiser):
    def __init__(self):
        super().__init__()
        self.schedule = LinearSchedule()

    def forward(self, x_t, t, cond=None):
        return 0.5 * x_t


def unnoise(kind):
    """The registered sampler of that name, or nothing."""
    if kind not in samplers:
        return

    def prepare(x, n):
        sampler, denoiser = samplers.build({"name": kind}), _Trivial()
        grid = make_grid("trailing", n, denoiser.schedule)
        noise = NoiseSource(0, range(len(x))) if sampler.stochastic else None
        return partial(sample, sampler, denoiser, x, grid, noise=noise)

    yield f"unnoise {kind}", prepare


def diffusers(kind):
    """Its scheduler of that kind; set_timesteps, which also forgets the run before, is not timed."""
    library = importlib.import_module("diffusers")
    library.utils.logging.set_verbosity_error()
    found = {
        "euler": [("Euler", "EulerDiscreteScheduler", {}), ("FlowMatchEuler", "FlowMatchEulerDiscreteScheduler", {})],
        "ddim": [("DDIM", "DDIMScheduler", {"clip_sample": False})],
        "heun": [("Heun", "HeunDiscreteScheduler", {})],
        "dpmpp_2m": [("DPM++(2M)", "DPMSolverMultistepScheduler", {})],
        "dpmpp_3m": [("DPM++(3M)", "DPMSolverMultistepScheduler", {"solver_order": 3})],
        "unipc": [("UniPC", "UniPCMultistepScheduler", {})],
        "deis": [("DEIS", "DEISMultistepScheduler", {})],
        "lms": [("LMS", "LMSDiscreteScheduler", {})],
        "ddpm": [("DDPM", "DDPMScheduler", {"clip_sample": False})],
        "ancestral": [("EulerAncestral", "EulerAncestralDiscreteScheduler", {})],
    }

    def prepare(name, options, x, n):
        scheduler = getattr(library, name)(**options)
        scheduler.set_timesteps(n)
        scaled = name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "EulerAncestralDiscreteScheduler")  # fmt: skip # noqa: E501

        def run():
            at = x
            for t in scheduler.timesteps:
                seen = scheduler.scale_model_input(at, t) if scaled else at
                at = scheduler.step(0.5 * seen, t, at, return_dict=False)[0]
            return at

        return run

    for label, name, options in found.get(kind, []):
        yield f"diffusers {label}", partial(prepare, name, options)


def k_diffusion(kind):
    """Its function of that kind, on Karras's grid."""
    sampling = k_diffusion_sampling()
    found = {
        "euler": ("euler", sampling.sample_euler),
        "heun": ("heun", sampling.sample_heun),
        "dpmpp_2m": ("dpmpp_2m", sampling.sample_dpmpp_2m),
        "dpmpp_3m": ("dpmpp_3m_sde eta=0", partial(sampling.sample_dpmpp_3m_sde, eta=0.0)),
        "lms": ("lms", sampling.sample_lms),
        "ancestral": ("euler_ancestral", sampling.sample_euler_ancestral),
    }

    def prepare(solver, x, n):
        sigmas = sampling.get_sigmas_karras(n, *RANGE)
        return partial(solver, lambda x, sigma: 0.5 * x, x, sigmas, disable=True)

    if kind in found:
        yield f"k-diffusion {found[kind][0]}", partial(prepare, found[kind][1])


def azula(kind):
    """Its sampler of that kind under its own VP schedule."""
    noise, library = importlib.import_module("azula.noise"), importlib.import_module("azula.sample")
    found = {
        "euler": ("Euler", library.EulerSampler, {}),
        "ddim": ("DDIM", library.DDIMSampler, {}),
        "heun": ("Heun", library.HeunSampler, {}),
        "dpmpp_2m": ("xEAB(2)", library.xEABSampler, {"order": 2}),
        "dpmpp_3m": ("xEAB(3)", library.xEABSampler, {"order": 3}),
        "deis": ("zAB(3)", library.zABSampler, {"order": 3}),
        "lms": ("zAB(4)", library.zABSampler, {"order": 4}),
        "arc": ("REAB(3)", library.REABSampler, {"order": 3}),
        "ddpm": ("DDPM", library.DDPMSampler, {}),
    }

    def prepare(solver, options, x, n):
        def denoiser(x_t, t):
            return SimpleNamespace(mean=0.5 * x_t)

        denoiser.schedule = noise.VPSchedule()
        return partial(solver(denoiser, steps=n, silent=True, **options), x)

    if kind in found:
        name, solver, options = found[kind]
        yield f"azula {name}", partial(prepare, solver, options)


def flow_matching(kind):
    """torchdiffeq's method of that kind through ODESolver."""
    solver_class = importlib.import_module("flow_matching.solver").ODESolver

    def prepare(method, x, n):
        solver, times = solver_class(lambda x, t: 0.5 * x), torch.linspace(0, 1, n + 1)
        return partial(solver.sample, x, step_size=None, method=method, time_grid=times)

    for method in {"euler": ("euler",), "heun": ("heun2", "midpoint")}.get(kind, ()):
        yield f"flow_matching {method}", partial(prepare, method)


def smalldiffusion(kind):
    """Its one sampler; gam = 1 is DDIM."""
    module = smalldiffusion_module()

    def prepare(x, n):
        model = SimpleNamespace(
            eval=lambda: None,
            rand_input=lambda batch: torch.randn(x.shape),
            predict_eps_cfg=lambda x, sigma, cond, scale: 0.5 * x,
        )
        sigmas = module.ScheduleDDPM().sample_sigmas(n)
        place = SimpleNamespace(device="cpu")

        def run():
            for found in module.samples(model, sigmas, xt=x, accelerator=place):
                end = found
            return end

        return run

    if kind in ("euler", "ddim"):
        yield "smalldiffusion gam=1", prepare


LIBRARIES = {
    "diffusers": diffusers,
    "k-diffusion": k_diffusion,
    "azula": azula,
    "flow_matching": flow_matching,
    "smalldiffusion": smalldiffusion,
}


def measure(libraries, shapes=SHAPES, kinds=KINDS, turns=9, steps=250):
    """Times every contender of every kind.

    Args:
        libraries: Names of those that are installed.
        shapes: Of x.
        kinds: Of solver; a kind that unnoise does not have is left out.
        turns: How often each runs; the median counts.
        steps: Of each run.

    Yields:
        For each shape and kind the rows {"shape", "kind", "name", "us", "ratio"}, fastest first: µs a step, and for unnoise
        the median over the turns of its time by that of the fastest peer.
    """
    for shape in shapes:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for kind in kinds:
            contenders = [*unnoise(kind)]
            if contenders:
                for library in libraries:
                    contenders += LIBRARIES[library](kind)
                yield _in_turns(kind, contenders, x, turns, steps)


def _in_turns(kind, contenders, x, turns, steps):
    times = {name: [] for name, _ in contenders}
    with torch.no_grad():
        # The first turn only warms up; who takes more than a second for it makes shorter runs.
        lengths = {name: steps if _seconds(make, x, steps) < 1 else steps // 10 for name, make in contenders}
        for turn in range(turns):
            for name, make in contenders if turn % 2 else reversed(contenders):
                times[name].append(1e6 * _seconds(make, x, lengths[name]) / lengths[name])
    medians = {name: statistics.median(found) for name, found in times.items()}
    peers = [name for name in medians if not name.startswith("unnoise")]
    fastest = min(peers, key=medians.get, default=None)
    rows = []
    for name, us in sorted(medians.items(), key=lambda pair: pair[1]):
        ratio = None
        if fastest and name not in peers:
            ratio = statistics.median(a / b for a, b in zip(times[name], times[fastest], strict=True))
        rows.append({"shape": list(x.shape), "kind": kind, "name": name, "us": us, "ratio": ratio})
    return rows


def _seconds(make, x, steps):
    run = make(x, steps)
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    run()
    spent = time.perf_counter() - begin
    gc.enable()
    return spent
