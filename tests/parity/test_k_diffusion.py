"""Our samplers against k-diffusion 0.1.1 itself: same denoiser, same noise, same grid; and what is wrong there."""

import itertools
import math

import pytest
import torch

from unnoise.samplers.adaptive import AdaptiveSampler
from unnoise.samplers.ancestral import AncestralSampler
from unnoise.samplers.churn import ChurnSampler
from unnoise.samplers.dpm2 import DPM2Sampler
from unnoise.samplers.dpm_solver import DPMSolverSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.dpmpp_2s import DPMSolverPP2SSampler
from unnoise.samplers.dpmpp_3m import DPMSolverPP3MSampler
from unnoise.samplers.dpmpp_sde import DPMSolverPPSDESampler
from unnoise.samplers.euler import EulerSampler
from unnoise.samplers.heun import HeunSampler
from unnoise.samplers.lms import LMSSampler

CLOSE = 1e-9


def same(found, theirs, close=CLOSE):
    torch.testing.assert_close(found, theirs, atol=close, rtol=0)


@pytest.fixture
def sigmas(k_diffusion, float64):
    return k_diffusion.get_sigmas_karras(40, 0.01, 80.0)


@pytest.fixture
def model(problem):
    """D(x, sigma) as k-diffusion asks for it, with a sigma for every sample."""
    return lambda x, sigma: problem.clean(x, 1.0, sigma[0])


def in_order(drawn):
    draws = iter(drawn)
    return lambda *_: next(draws)


WITHOUT_NOISE = {
    "euler": (EulerSampler(), {}),
    "heun": (HeunSampler(), {}),
    "dpm_2": (DPM2Sampler(), {}),
    "dpmpp_2m": (DPMSolverPPSampler(), {}),
    "lms": (LMSSampler(2), {"order": 2}),
    "dpmpp_2s_ancestral": (DPMSolverPP2SSampler(), {"eta": 0.0}),
    "dpmpp_sde": (DPMSolverPPSDESampler(0.0), {"eta": 0.0}),
}


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_without_noise(k_diffusion, problem, sigmas, model, name):
    (sampler, options), x = WITHOUT_NOISE[name], problem.start(80.0)
    if options.get("eta") == 0:
        options = {**options, "noise_sampler": lambda *_: torch.zeros(5, 2)}
    theirs = getattr(k_diffusion, f"sample_{name}")(model, x, sigmas, disable=True, **options)
    found = problem.ours(sampler, problem.exploding, x, problem.times(problem.exploding, sigmas))
    same(found, theirs)


@pytest.mark.parametrize("eta", [0.6, 1.0])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("euler_ancestral", AncestralSampler),
        ("dpm_2_ancestral", DPM2Sampler),
        ("dpmpp_2s_ancestral", DPMSolverPP2SSampler),
    ],
)
def test_ancestral(k_diffusion, problem, sigmas, model, name, kind, eta):
    x, kept = problem.start(80.0), problem.kept()
    found = problem.ours(kind(eta=eta), problem.exploding, x, problem.times(problem.exploding, sigmas), kept)
    sampler = getattr(k_diffusion, f"sample_{name}")
    theirs = sampler(model, x, sigmas, disable=True, eta=eta, noise_sampler=in_order(kept.drawn))
    assert len(kept.drawn) == 39
    same(found, theirs)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("noise_scale", [1.0, 1.05])
def test_dpmpp_sde(k_diffusion, problem, sigmas, model, eta, noise_scale):
    x, kept = problem.start(80.0), problem.kept()
    grid = problem.times(problem.exploding, sigmas)
    found = problem.ours(DPMSolverPPSDESampler(eta, noise_scale), problem.exploding, x, grid, kept)
    draws = []
    for path, rest, (here, there) in zip(
        kept.drawn[::2], kept.drawn[1::2], itertools.pairwise(sigmas[:-1].tolist()), strict=True
    ):
        # Of a Brownian path in sigma, as BrownianTreeNoiseSampler has it: what leads to the middle is part of the whole.
        shared = math.sqrt((here - math.sqrt(here * there)) / (here - there))
        draws += [shared * path + math.sqrt(1 - shared**2) * rest, path]
    theirs = k_diffusion.sample_dpmpp_sde(
        model, x, sigmas, disable=True, eta=eta, s_noise=noise_scale, noise_sampler=in_order(draws)
    )
    same(found, theirs)


def test_dpmpp_2m_sde(k_diffusion, problem, sigmas, model):
    x, kept = problem.start(80.0), problem.kept()
    grid = problem.times(problem.exploding, sigmas)
    found = problem.ours(DPMSolverPPSampler(sde=True), problem.exploding, x, grid, kept)
    theirs = k_diffusion.sample_dpmpp_2m_sde(
        model, x, sigmas, disable=True, solver_type="midpoint", noise_sampler=in_order(kept.drawn)
    )
    same(found, theirs)


def test_heun_with_churn(k_diffusion, problem, sigmas, model, monkeypatch):
    x, kept = problem.start(80.0), problem.kept()
    grid = problem.times(problem.exploding, sigmas)
    low = 0.011  # above the last sigma: theirs also raises the noise level before the step to clean data
    found = problem.ours(ChurnSampler(0.2, low=low, noise_scale=1.007), problem.exploding, x, grid, kept)
    monkeypatch.setattr(torch, "randn_like", in_order([*kept.drawn, torch.zeros(5, 2)]))
    theirs = k_diffusion.sample_heun(model, x, sigmas, disable=True, s_churn=0.2 * 40, s_tmin=low, s_noise=1.007)
    same(found, theirs)


@pytest.mark.parametrize("order", [3, 4])
def test_lms(k_diffusion, problem, sigmas, model, order):
    """Theirs begins with Euler's rule; from where the past is complete every single step is the same."""
    seen = []
    x = problem.start(80.0)
    end = k_diffusion.sample_lms(model, x, sigmas, disable=True, order=order, callback=seen.append)
    xs = [one["x"] for one in seen] + [end]
    noises = [(one["x"] - one["denoised"]) / one["sigma"] for one in seen]
    grid = problem.times(problem.exploding, sigmas)
    found = problem.single_steps(LMSSampler(order), problem.exploding, grid, xs, noises, order - 1)
    same(torch.stack(found[:-1]), torch.stack(xs[order:-1]))
    same(found[-1], xs[-1], 1e-5)  # their integral of the last step is good to 1e-4 of itself


def test_dpm_adaptive(k_diffusion, problem, model, float64):
    x = problem.start(80.0)
    theirs = k_diffusion.sample_dpm_adaptive(model, x, 0.01, 80.0, disable=True, rtol=1e-6, atol=1e-6)
    grid = problem.times(problem.exploding, [80.0, 0.01])
    found = problem.ours(AdaptiveSampler(rtol=1e-8, atol=1e-8), problem.exploding, x, grid)
    same(found, theirs, 1e-5)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_single_steps(k_diffusion, problem, sigmas, model, order):
    """Those of sample_dpm_fast."""
    solver, x = k_diffusion.DPMSolver(model), problem.start(80.0)
    grid, oracle = problem.times(problem.exploding, sigmas), problem.oracle(problem.exploding)
    for i in range(38):
        begin, end = -sigmas[i].log(), -sigmas[i + 1].log()
        theirs, _ = getattr(solver, f"dpm_solver_{order}_step")(x, begin, end)
        found = DPMSolverSampler(order).step(oracle, x, grid[i], grid[i + 1], None).x
        same(found, theirs)
        x = theirs


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpmpp_3m_sde_gives_the_second_difference_half_its_weight(k_diffusion, problem, parabola, sigmas, eta):
    """Theirs is of second order; ours is exact where the estimate is a parabola."""
    curve, seen = parabola(problem.exploding), []
    grid = problem.times(problem.exploding, sigmas)
    k_diffusion.sample_dpmpp_3m_sde(
        lambda x, sigma: torch.full_like(x, float(sigma[0].log()) ** 2), problem.start(80.0), sigmas, disable=True,
        eta=eta, noise_sampler=lambda *_: torch.zeros(5, 2), callback=seen.append,
    )  # fmt: skip
    xs = [one["x"] for one in seen]
    for i in range(2, 39):
        right = curve.step(xs[i], grid[i], grid[i + 1], eta)
        same(curve.ours(DPMSolverPP3MSampler(sde=True, eta=eta), xs, grid, i), right)
        same(xs[i + 1] - right, torch.full((5, 2), -0.5 * curve.bend(grid[i], grid[i + 1], eta)))


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_a_single_step_of_the_stochastic_multistep_samplers_fails(k_diffusion, problem, model, float64, name):
    x, sigmas = problem.start(80.0), torch.tensor([80.0, 0.0])
    sampler = {"dpmpp_2m_sde": DPMSolverPPSampler(sde=True), "dpmpp_3m_sde": DPMSolverPP3MSampler(sde=True)}[name]
    found = problem.ours(sampler, problem.exploding, x, problem.times(problem.exploding, sigmas), problem.kept())
    same(found, problem.clean(x, 1.0, 80.0))
    with pytest.raises(UnboundLocalError):
        getattr(k_diffusion, f"sample_{name}")(model, x, sigmas, disable=True, noise_sampler=lambda *_: x)
