"""Our samplers against the schedulers of diffusers 0.42.1 themselves: same denoiser, same noise, same grid, all in float64."""

import itertools

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.ancestral import AncestralSampler
from unnoise.samplers.base import sample
from unnoise.samplers.consistency import ConsistencySampler
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.ddpm import DDPMSampler
from unnoise.samplers.deis import DEISSampler
from unnoise.samplers.dpm2 import DPM2Sampler
from unnoise.samplers.dpm_solver import DPMSolverSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.dpmpp_2s import DPMSolverPP2SSampler
from unnoise.samplers.euler import EulerSampler
from unnoise.samplers.heun import HeunSampler
from unnoise.samplers.lms import LMSSampler
from unnoise.samplers.plms import PLMSSampler
from unnoise.samplers.sa_solver import SASolverSampler
from unnoise.samplers.unipc import UniPCSampler

LINEAR = LinearSchedule()
CLOSE = 1e-9
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning"),
]


def same(found, theirs, close=CLOSE):
    torch.testing.assert_close(found, theirs, atol=close, rtol=0)


def at_level(_, timestep):
    """The scales of a level of the chain."""
    bar = LINEAR.alpha_bars[int(timestep)]
    return bar.sqrt(), (1 - bar).sqrt()


def preserving(scheduler):
    """The scales of schedulers that work in x, along their sigma / alpha."""

    def scales(call, _):
        alpha = 1 / (1 + scheduler.sigmas[call] ** 2).sqrt()
        return alpha, scheduler.sigmas[call] * alpha

    return scales


def exploding(scheduler):
    """The scales of schedulers that work in x / alpha."""
    return lambda call, _: (1.0, scheduler.sigmas[call])


def distinct(sigmas):
    """A falling row without repetitions."""
    return sigmas.unique().flip(0)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("n", [1000, 50])
def test_ddpm(problem, scheduler, variance, n):
    x, kept = problem.start(), problem.kept()
    ours = DDPMSampler("posterior" if variance == "fixed_small" else "beta")
    found = problem.ours(ours, LINEAR, x, grids.discrete(n, 1000, "leading"), kept)
    made = scheduler("DDPMScheduler", n, kept.drawn, variance_type=variance, clip_sample=False)
    same(found, problem.theirs(made, x, at_level)[-1])


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("n", [1, 20, 250])
def test_ddim(problem, scheduler, eta, spacing, n):
    x, kept = problem.start(), problem.kept()
    found = problem.ours(DDIMSampler(eta), LINEAR, x, grids.discrete(n, 1000, spacing), kept)
    made = scheduler("DDIMScheduler", n, kept.drawn, clip_sample=False, timestep_spacing=spacing)
    same(found, problem.theirs(made, x, at_level, eta=eta)[-1])


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_inverse(problem, scheduler, spacing):
    made = scheduler("DDIMInverseScheduler", 50, clip_sample=False, timestep_spacing=spacing)
    levels = [-1, *made.timesteps.tolist()]
    x = problem.oracle(LINEAR).sample(5)
    rising = (torch.tensor(levels) + 1) / 1000
    found = problem.ours(DDIMSampler(), LINEAR, x, rising)

    # Their pipelines ask about x of one level as if it were of the next; here both ask at the level where x is.
    def answer(x, before, alpha, sigma):
        return problem.noise_in(alpha * x if before < 0 else x, alpha, sigma)

    def scales(call, _):
        return levels[call], *at_level(call, levels[max(call, 1)])

    same(found, problem.theirs(made, x, scales, answer)[-1])


IN_SIGMA = {
    "EulerDiscrete": EulerSampler(),
    "EulerAncestralDiscrete": AncestralSampler(),
    "HeunDiscrete": HeunSampler(),
    "KDPM2Discrete": DPM2Sampler(),
    "KDPM2AncestralDiscrete": DPM2Sampler(eta=1.0),
    "LMSDiscrete": LMSSampler(2),
}


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        (name, spacing)
        for name in IN_SIGMA
        for spacing in ("leading", "trailing", "linspace", "karras")
        if (name, spacing) != ("EulerAncestralDiscrete", "karras")  # it has no such grid
    ],
)
def test_in_sigma(problem, scheduler, name, spacing):
    where = {"use_karras_sigmas": True} if spacing == "karras" else {"timestep_spacing": spacing}
    ratios = distinct(scheduler(f"{name}Scheduler", 40, **where).sigmas)
    x, kept = problem.start(float(ratios[0])), problem.kept()
    found = problem.ours(IN_SIGMA[name], problem.exploding, x, problem.times(problem.exploding, ratios), kept)
    made = scheduler(f"{name}Scheduler", 40, kept.drawn, **where)
    scales, options = exploding(made), {"order": 2} if name == "LMSDiscrete" else {}
    if "KDPM2" in name:
        late = int("Ancestral" in name)
        scales = lambda call, _: (1.0, made.sigmas_interpol[call - late] if call % 2 else made.sigmas[call])
    same(found, problem.theirs(made, x, scales, **options)[-1])


@pytest.mark.parametrize("sampler", [HeunSampler(line="noise"), DPM2Sampler(line="noise")], ids=["Heun", "KDPM2"])
def test_in_sigma_on_a_schedule_that_preserves_variance(problem, scheduler, sampler):
    made = scheduler(f"{'KDPM2' if isinstance(sampler, DPM2Sampler) else 'Heun'}DiscreteScheduler", 40)
    ratios = distinct(made.sigmas)
    x, grid = problem.start(), problem.times(LINEAR, ratios)
    middles = getattr(made, "sigmas_interpol", made.sigmas)
    found = problem.ours(sampler, LINEAR, x, grid)
    start = x / LINEAR.alpha(grid[0])
    same(found, problem.theirs(made, start, lambda call, _: (1.0, (middles if call % 2 else made.sigmas)[call]))[-1])


def test_edm_euler(problem, scheduler):
    made = scheduler("EDMEulerScheduler", 30)
    data = made.config.sigma_data

    def answer(x, alpha, sigma):
        total = sigma**2 + data**2
        return (problem.clean(x, alpha, sigma) - data**2 / total * x) * total.sqrt() / (sigma * data)

    x = problem.start(80.0)
    found = problem.ours(EulerSampler(), problem.exploding, x, problem.times(problem.exploding, made.sigmas))
    same(found, problem.theirs(made, x, exploding(made), answer)[-1])


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("name", "sampler"), [("Euler", EulerSampler()), ("Heun", HeunSampler())], ids=["euler", "heun"]
)
def test_flow_matching(problem, scheduler, name, sampler, shift):
    made = scheduler(f"FlowMatch{name}DiscreteScheduler", 30, shift=shift)
    x, grid = problem.start(), distinct(made.sigmas)
    found = problem.ours(sampler, FlowSchedule(), x, grid)

    def answer(x, alpha, sigma):
        return (x - problem.clean(x, alpha, sigma)) / sigma

    same(found, problem.theirs(made, x, lambda call, _: (1 - made.sigmas[call], made.sigmas[call]), answer)[-1])


class Bounded(Denoiser):
    """The boundary condition of latent consistency models around an exact denoiser."""

    def __init__(self, oracle, scheduler):
        super().__init__()
        self.schedule, self.oracle, self.scheduler = oracle.schedule, oracle, scheduler

    def forward(self, x_t, t, cond=None):
        level = round(float(t) * 1000) - 1
        skip, out = self.scheduler.get_scalings_for_boundary_condition_discrete(level)
        return skip * x_t + out * self.oracle(x_t, t)


@pytest.mark.parametrize("n", [1, 4])
def test_lcm(problem, scheduler, n):
    made = scheduler("LCMScheduler", n, beta_schedule="linear", clip_sample=False)
    grid = torch.cat([(made.timesteps + 1) / 1000, torch.zeros(1)])
    x, kept = problem.start(), problem.kept()
    found = sample(ConsistencySampler(), Bounded(problem.oracle(LINEAR), made), x, grid, noise=kept)
    made = scheduler("LCMScheduler", n, kept.drawn, beta_schedule="linear", clip_sample=False)
    same(found, problem.theirs(made, x, at_level)[-1])


MULTISTEP = {
    "DEIS 1": ("DEISMultistep", DEISSampler(1, "log"), {"solver_order": 1}),
    "DEIS 2": ("DEISMultistep", DEISSampler(2, "log"), {"solver_order": 2}),
    "DPM++ 1": ("DPMSolverMultistep", DPMSolverPPSampler(1), {"solver_order": 1}),
    "DPM++ 2M": ("DPMSolverMultistep", DPMSolverPPSampler(), {"solver_order": 2}),
    "SDE-DPM++ 1": (
        "DPMSolverMultistep",
        DPMSolverPPSampler(1, sde=True),
        {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
    ),
    "SDE-DPM++ 2M": (
        "DPMSolverMultistep",
        DPMSolverPPSampler(sde=True),
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
    ),
    "UniPC 1": ("UniPCMultistep", UniPCSampler(1), {"solver_order": 1}),
    "UniPC 2": ("UniPCMultistep", UniPCSampler(2), {"solver_order": 2}),
    "UniP 2": ("UniPCMultistep", UniPCSampler(2, corrector=False), {"disable_corrector": list(range(61))}),
}


@pytest.mark.parametrize("name", MULTISTEP)
def test_multistep_from_noise_to_clean_data(problem, scheduler, name):
    kind, sampler, options = MULTISTEP[name]
    ratios = scheduler(f"{kind}Scheduler", 61, use_exponential_sigmas=True, **options).sigmas
    x, kept = problem.start(), problem.kept()
    found = problem.ours(sampler, LINEAR, x, problem.times(LINEAR, distinct(ratios)), kept)
    made = scheduler(f"{kind}Scheduler", 61, kept.drawn, use_exponential_sigmas=True, **options)
    same(found, problem.theirs(made, x, preserving(made))[-1])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_up_to_the_last_steps(problem, scheduler, order, variant):
    """Theirs goes down to order 2 and 1 in the last two steps; with bh1 the last one is NaN there."""
    made = scheduler(
        "UniPCMultistepScheduler", 61, use_exponential_sigmas=True, solver_order=order, solver_type=variant
    )
    x, grid = problem.start(), problem.times(LINEAR, made.sigmas)
    found = problem.steps(UniPCSampler(order, variant=variant), LINEAR, x, grid)
    xs = problem.theirs(made, x, preserving(made))
    same(torch.stack([step.x for step in found[:59]]), torch.stack(xs[1:60]))
    assert found[-1].x.isfinite().all()


@pytest.mark.parametrize(
    ("sampler", "stride", "options"),
    [
        (DPMSolverSampler(1), 1, {"algorithm_type": "dpmsolver"}),
        (DPMSolverSampler(2), 2, {"algorithm_type": "dpmsolver"}),
        (EulerSampler(), 1, {}),
        (DPMSolverPP2SSampler(), 2, {}),
    ],
    ids=["DPM 1", "DPM 2S", "DPM++ 1", "DPM++ 2S"],
)
def test_single_step(problem, scheduler, sampler, stride, options):
    options = {**options, "solver_order": stride, "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}
    made = scheduler("DPMSolverSinglestepScheduler", 61, **options)
    x, ratios = problem.start(), distinct(made.sigmas)[::stride]
    found = problem.ours(sampler, LINEAR, x, problem.times(LINEAR, ratios))
    same(found, problem.theirs(made, x, preserving(made))[-1])


@pytest.mark.parametrize("order", [3, 4])
def test_every_step_of_lms(problem, scheduler, order):
    """Theirs begins with Euler's rule, so it is compared step by step, from where the past is complete."""
    made = scheduler("LMSDiscreteScheduler", 40, use_karras_sigmas=True)
    xs = problem.theirs(made, problem.start(float(made.sigmas[0])), exploding(made), order=order)
    noises = [problem.noise_in(x, 1.0, sigma) for x, sigma in zip(xs[:-1], made.sigmas[:-1], strict=True)]
    grid = problem.times(problem.exploding, made.sigmas)
    found = problem.single_steps(LMSSampler(order), problem.exploding, grid, xs, noises, order - 1)
    same(torch.stack(found), torch.stack(xs[order:]), 1e-5)  # their integrals are good to 1e-4 of themselves


def test_every_step_of_deis_of_third_order(problem, scheduler):
    made = scheduler("DEISMultistepScheduler", 61, use_exponential_sigmas=True, solver_order=3)
    xs = problem.theirs(made, problem.start(), preserving(made))
    scales = [preserving(made)(call, None) for call in range(60)]
    noises = [problem.noise_in(x, *at) for x, at in zip(xs, scales, strict=False)]
    grid = problem.times(LINEAR, distinct(made.sigmas))
    found = problem.single_steps(DEISSampler(3, "log"), LINEAR, grid[:61], xs, noises, 2)
    same(torch.stack(found), torch.stack(xs[3:61]))


@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 3), (3, 3), (3, 4)])
def test_every_step_of_sa_solver(problem, scheduler, predictor, corrector, tau):
    """At order 2 theirs takes other weights than the paper's Equations 14 and 17, which differ by O(h^3)."""
    options = {"predictor_order": predictor, "corrector_order": corrector, "tau_func": lambda _: torch.tensor(tau)}
    made = scheduler("SASolverScheduler", 61, use_exponential_sigmas=True, **options)
    grid = problem.times(LINEAR, distinct(made.sigmas))
    source = problem.kept().source
    drawn = [source(torch.empty(5, 2, dtype=torch.float64), float(t), float(s)) for t, s in itertools.pairwise(grid)]
    made = scheduler("SASolverScheduler", 61, drawn, use_exponential_sigmas=True, **options)
    xs = problem.theirs(made, problem.start(), preserving(made))
    scales = [preserving(made)(call, None) for call in range(60)]
    cleans = [problem.clean(x, *at) for x, at in zip(xs, scales, strict=False)]
    sampler = SASolverSampler(predictor, corrector, tau)
    keep = max(predictor, corrector - 1)
    found = problem.single_steps(sampler, LINEAR, grid, xs, cleans, keep)
    same(torch.stack(found[:-1]), torch.stack(xs[keep + 1 : 60]))  # theirs is of lower order in the last step


@pytest.mark.parametrize("warmup", ["plms", "runge_kutta"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_pndm(problem, scheduler, warmup, spacing):
    """Where the last two steps are long, ours goes through fewer estimates."""
    x, options = problem.start(), {"skip_prk_steps": warmup == "plms", "set_alpha_to_one": True}
    made = scheduler("PNDMScheduler", 50, timestep_spacing=spacing, **options)
    found = problem.steps(PLMSSampler(warmup), LINEAR, x, grids.discrete(50, 1000, spacing))
    xs = problem.theirs(made, x, at_level)[-47:]  # after the first three steps, which ask more often
    same(torch.stack([step.x for step in found[3:48]]), torch.stack(xs[:45]))
