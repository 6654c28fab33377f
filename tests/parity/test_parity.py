"""Our samplers against plain loops written from the papers, in the papers' notation, in numpy, with the same noise."""

import numpy as np
import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.scaled_linear import ScaledLinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.ancestral import AncestralSampler
from unnoise.samplers.base import sample
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.ddpm import DDPMSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.heun import HeunSampler

MEANS, STDS, WEIGHTS = (
    np.array([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]]),
    np.array([0.5, 0.7, 0.4]),
    np.array([0.5, 0.2, 0.3]),
)


def posterior_mean(x, alpha, sigma):
    """E[x_0 | x] of the mixture at any alpha and sigma."""
    variance = alpha**2 * STDS**2 + sigma**2
    offset = x[:, None] - alpha * MEANS
    logits = np.log(WEIGHTS) - np.log(variance) - (offset**2).sum(-1) / (2 * variance)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return (share[..., None] * (MEANS + (alpha * STDS**2 / variance)[:, None] * offset)).sum(1)


def ours(sampler, schedule, x, grid, noise=None):
    oracle = GaussianMixtureOracle(*(torch.from_numpy(v) for v in (MEANS, STDS, WEIGHTS)), schedule)
    return sample(sampler, oracle, torch.from_numpy(x), grid, noise=noise).numpy()


class Kept:
    """The noise of a run, kept in the order in which it was drawn."""

    def __init__(self):
        self.source, self.drawn = NoiseSource(8, range(5)), []

    def __call__(self, like, t, s, draw=0):
        noise = self.source(like, t, s, draw)
        self.drawn.append(noise.numpy())
        return noise


def start(sigma=1.0):
    return sigma * np.random.default_rng(3).standard_normal((5, 2))


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_ddpm_is_algorithm_2_of_ho_et_al(variance):
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas = 1 - betas
    bars = np.cumprod(alphas)
    kept = Kept()
    x = start()
    found = ours(DDPMSampler(variance), LinearSchedule(), x, grids.discrete(1000, 1000), kept)
    draws = iter(kept.drawn)
    for t in reversed(range(1000)):
        eps = (x - np.sqrt(bars[t]) * posterior_mean(x, np.sqrt(bars[t]), np.sqrt(1 - bars[t]))) / np.sqrt(1 - bars[t])
        x = (x - betas[t] / np.sqrt(1 - bars[t]) * eps) / np.sqrt(alphas[t])
        if t > 0:
            tilde = (1 - bars[t - 1]) / (1 - bars[t]) * betas[t]
            x = x + np.sqrt(betas[t] if variance == "beta" else tilde) * next(draws)
    assert next(draws, None) is None
    np.testing.assert_allclose(found, x, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_is_equation_12_of_song_et_al_with_a_last_step_to_clean_data(eta, spacing):
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    indices = np.arange(999, -1, -50) if spacing == "trailing" else np.arange(950, -1, -50)
    assert len(indices) == 20
    kept = Kept()
    x = start()
    found = ours(DDIMSampler(eta), LinearSchedule(), x, grids.discrete(20, 1000, spacing), kept)
    draws = iter(kept.drawn)
    for i, t in enumerate(indices):
        a, before = bars[t], bars[indices[i + 1]] if i + 1 < len(indices) else 1.0
        eps = (x - np.sqrt(a) * posterior_mean(x, np.sqrt(a), np.sqrt(1 - a))) / np.sqrt(1 - a)
        spread = eta * np.sqrt((1 - before) / (1 - a)) * np.sqrt(1 - a / before)
        x = np.sqrt(before) * (x - np.sqrt(1 - a) * eps) / np.sqrt(a) + np.sqrt(1 - before - spread**2) * eps
        if spread > 0:
            x = x + spread * next(draws)
    assert next(draws, None) is None
    np.testing.assert_allclose(found, x, atol=1e-10)


def test_heun_is_algorithm_1_of_karras_et_al_in_sigma():
    n, rho, low, high = 18, 7, 0.002, 80.0
    sigmas = (high ** (1 / rho) + np.arange(n) / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    sigmas = np.append(sigmas, 0.0)
    schedule = VarianceExplodingSchedule()
    x = start(high)
    found = ours(HeunSampler(), schedule, x, grids.karras(n, schedule))
    for i in range(n):
        d = (x - posterior_mean(x, 1.0, sigmas[i])) / sigmas[i]
        ahead = x + (sigmas[i + 1] - sigmas[i]) * d
        if sigmas[i + 1] != 0:
            d_ahead = (ahead - posterior_mean(ahead, 1.0, sigmas[i + 1])) / sigmas[i + 1]
            ahead = x + (sigmas[i + 1] - sigmas[i]) * (d / 2 + d_ahead / 2)
        x = ahead
    np.testing.assert_allclose(found, x, atol=1e-9)


def test_heun_on_the_straight_path_is_heuns_rule_for_the_velocity():
    times = np.linspace(1, 0, 13)
    x = start()
    found = ours(HeunSampler(), FlowSchedule(), x, grids.uniform(12))

    def velocity(x, t):
        return (x - posterior_mean(x, 1 - t, t)) / t

    for t, s in zip(times[:-1], times[1:], strict=True):
        v = velocity(x, t)
        ahead = x + (s - t) * v
        x = x + (s - t) * (v + velocity(ahead, s)) / 2 if s > 0 else ahead
    np.testing.assert_allclose(found, x, atol=1e-10)


@pytest.mark.parametrize("grid_name", ["uniform", "karras", "angle"])
@pytest.mark.parametrize("schedule", [ScaledLinearSchedule(), CosineSchedule()], ids=["scaled linear", "cosine"])
def test_dpm_solver_pp_2m_is_algorithm_2_of_lu_et_al(schedule, grid_name):
    # In the paper t_0 > t_1 > ... > t_M, and t_M is not clean data: the run stops early.
    grid = grids.make_grid(grid_name, 15, schedule)[:-1]
    alpha, sigma = schedule.alpha(grid).numpy(), schedule.sigma(grid).numpy()
    lam = np.log(alpha) - np.log(sigma)
    x = start()
    found = ours(DPMSolverPPSampler(), schedule, x, grid)
    q_before = posterior_mean(x, alpha[0], sigma[0])
    h = lam[1] - lam[0]
    x = sigma[1] / sigma[0] * x - alpha[1] * (np.exp(-h) - 1) * q_before
    for i in range(2, len(grid)):
        h, h_before = lam[i] - lam[i - 1], lam[i - 1] - lam[i - 2]
        r = h_before / h
        q = posterior_mean(x, alpha[i - 1], sigma[i - 1])
        d = (1 + 1 / (2 * r)) * q - 1 / (2 * r) * q_before
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (np.exp(-h) - 1) * d
        q_before = q
    np.testing.assert_allclose(found, x, atol=1e-10)


def karras_sigmas(schedule, n):
    grid = grids.karras(n, schedule)
    return grid, np.append((schedule.sigma(grid[:-1]) / schedule.alpha(grid[:-1])).numpy(), 0.0)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("noise_scale", [1.0, 1.1])
@pytest.mark.parametrize(
    "schedule", [VarianceExplodingSchedule(), ScaledLinearSchedule()], ids=["exploding", "scaled linear"]
)
def test_ancestral_is_euler_ancestral_of_k_diffusion(schedule, eta, noise_scale):
    grid, sigmas = karras_sigmas(schedule, 20)
    alpha_1 = float(schedule.alpha(grid[0]))
    kept = Kept()
    y = start(sigmas[0])  # k-diffusion works in x / alpha
    found = ours(AncestralSampler(eta, noise_scale), schedule, y * alpha_1, grid, kept)
    draws = iter(kept.drawn)
    for here, there in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = posterior_mean(y, 1.0, here)
        up = min(there, eta * (there**2 * (here**2 - there**2) / here**2) ** 0.5)
        down = (there**2 - up**2) ** 0.5
        y = y + (y - denoised) / here * (down - here)
        if there > 0:
            y = y + next(draws) * noise_scale * up
    np.testing.assert_allclose(found, y, atol=1e-9)


@pytest.mark.parametrize(
    "schedule", [VarianceExplodingSchedule(), ScaledLinearSchedule()], ids=["exploding", "scaled linear"]
)
def test_the_stochastic_2m_is_sample_dpmpp_2m_sde_of_k_diffusion(schedule):
    grid, sigmas = karras_sigmas(schedule, 20)
    kept = Kept()
    y = start(sigmas[0])
    found = ours(DPMSolverPPSampler(sde=True), schedule, y * float(schedule.alpha(grid[0])), grid, kept)
    draws = iter(kept.drawn)
    old, h_last = None, None
    for here, there in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = posterior_mean(y, 1.0, here)
        if there == 0:
            y = denoised
        else:
            h = -np.log(there) + np.log(here)
            y = there / here * np.exp(-h) * y - np.expm1(-2 * h) * denoised
            if old is not None:
                y = y - 0.5 * np.expm1(-2 * h) * (h / h_last) * (denoised - old)
            y = y + next(draws) * there * np.sqrt(-np.expm1(-2 * h))
            h_last = h
        old = denoised
    np.testing.assert_allclose(found, y, atol=1e-9)
