"""Samplers of one step against loops written from the papers, in numpy, with x / alpha at the noise level sigma / alpha."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import sample
from unnoise.samplers.churn import ChurnSampler
from unnoise.samplers.dpm2 import DPM2Sampler
from unnoise.samplers.dpm_solver import DPMSolverSampler, flow_plan
from unnoise.samplers.dpmpp_2s import DPMSolverPP2SSampler
from unnoise.samplers.dpmpp_sde import DPMSolverPPSDESampler
from unnoise.samplers.heun import HeunSampler
from unnoise.samplers.stages import follow

MEANS = np.array([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
STDS, WEIGHTS = np.array([0.5, 0.7, 0.4]), np.array([0.5, 0.2, 0.3])
UNEVEN = (0.97, 0.83, 0.8, 0.55, 0.31, 0.3, 0.12, 0.05, 0.0)
SCHEDULES = [LinearSchedule(), FlowSchedule(), VarianceExplodingSchedule(0.02, 30.0)]

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def denoise(y, k):
    """E[x_0 | y] for y = x_0 + k eps."""
    variance = STDS**2 + k**2
    offset = y[:, None] - MEANS
    logits = np.log(WEIGHTS) - np.log(variance) - (offset**2).sum(-1) / (2 * variance)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return (share[..., None] * (MEANS + (STDS**2 / variance)[:, None] * offset)).sum(1)


def oracle(schedule):
    return GaussianMixtureOracle(*(torch.from_numpy(v) for v in (MEANS, STDS, WEIGHTS)), schedule)


def levels(schedule, times=UNEVEN):
    return [float(schedule.sigma(f64(t)) / schedule.alpha(f64(t))) for t in times]


class Kept:
    """The noise of a run, kept by step and draw."""

    def __init__(self):
        self.source, self.drawn = NoiseSource(8, range(5)), []

    def __call__(self, like, t, s, draw=0):
        noise = self.source(like, t, s, draw)
        self.drawn.append((t, s, draw, noise.numpy()))
        return noise

    def array(self, i, draw=0):
        """The noise drawn on the way from time i to the next."""
        (found,) = (z for t, s, d, z in self.drawn if (t, s, d) == (UNEVEN[i], UNEVEN[i + 1], draw))
        return found


def run(sampler, schedule, times=UNEVEN):
    """Where ours ends; the start as y = x / alpha; the noise."""
    start, kept = torch.from_numpy(np.random.default_rng(3).standard_normal((5, 2))), Kept()
    x = float(schedule.sigma(f64(times[0]))) * start
    end = sample(sampler, oracle(schedule), x, f64(times), noise=kept).numpy()
    return end, (x / schedule.alpha(f64(times[0]))).numpy(), kept


def heun(y, here, there):
    d = (y - denoise(y, here)) / here
    ahead = y + (there - here) * d
    if there == 0:
        return ahead
    return y + (there - here) * (d + (ahead - denoise(ahead, there)) / there) / 2


@every_schedule
def test_heun_on_the_noise_line_is_algorithm_1_of_karras_et_al(schedule):
    found, y, _ = run(HeunSampler("noise"), schedule)
    ks = levels(schedule)
    for here, there in zip(ks[:-1], ks[1:], strict=True):
        y = heun(y, here, there)
    np.testing.assert_allclose(found, y, atol=1e-10)


@pytest.mark.parametrize("n", [2, 5])
def test_heun_on_the_noise_line_begins_on_the_flow_line_where_no_signal_is_left(n):
    grid = f64([1 - i / n for i in range(n)])
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 2)))
    noise, flow = (sample(HeunSampler(line), oracle(FlowSchedule()), x, grid[:2]) for line in ("noise", "flow"))
    assert torch.equal(noise, flow)


@every_schedule
@pytest.mark.parametrize(("churn", "low", "high", "scale"), [(0.3, 0.0, math.inf, 1.0), (0.2, 0.2, 2.0, 1.01)])
def test_churn_is_algorithm_2_of_karras_et_al(schedule, churn, low, high, scale):
    found, y, kept = run(ChurnSampler(churn, low, high, scale, line="noise"), schedule)
    ks, churned = levels(schedule), 0
    for i, (here, there) in enumerate(zip(ks[:-1], ks[1:], strict=True)):
        gamma = churn if low <= here <= high and there > 0 else 0.0
        hat = min(here * (1 + gamma), levels(schedule, [1 - 1e-15])[0])
        if hat > here:
            y = y + math.sqrt(hat**2 - here**2) * scale * kept.array(i)
            churned += 1
        y = heun(y, hat, there)
    assert churned == len(kept.drawn) >= 2
    np.testing.assert_allclose(found, y, atol=1e-8)


def test_churn_stops_at_the_end_of_the_schedule():
    schedule, asked = VarianceExplodingSchedule(0.02, 30.0), []

    class Asked(GaussianMixtureOracle):
        def forward(self, x_t, t, cond=None):
            asked.append(float(t))
            return super().forward(x_t, t, cond)

    x = torch.ones(5, 2, dtype=torch.float64)
    denoiser = Asked(*(torch.from_numpy(v) for v in (MEANS, STDS, WEIGHTS)), schedule)
    sample(ChurnSampler(0.4), denoiser, x, f64([0.98, 0.5, 0.0]), noise=Kept())
    # Up from 0.98, but not by all of ln(1.4) / ln(1500); then no churn before clean data.
    assert asked == [1.0, 0.5, 0.5]


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_dpm2_on_the_noise_line_looks_at_the_geometric_mean(schedule, eta):
    found, y, kept = run(DPM2Sampler(eta, line="noise"), schedule)
    ks = levels(schedule)
    for i, (here, there) in enumerate(zip(ks[:-1], ks[1:], strict=True)):
        up = eta * math.sqrt(there**2 * (here**2 - there**2) / here**2)
        down = math.sqrt(there**2 - up**2)
        d = (y - denoise(y, here)) / here
        if there == 0:
            y = y + d * (down - here)
            continue
        middle = math.exp((math.log(here) + math.log(down)) / 2)
        half = y + d * (middle - here)
        y = y + (half - denoise(half, middle)) / middle * (down - here)
        if eta:
            y = y + up * kept.array(i)
    assert len(kept.drawn) == (len(ks) - 2 if eta else 0)
    np.testing.assert_allclose(found, y, atol=1e-9)


def test_dpm2_takes_the_flow_line_by_itself_where_the_noise_does_not_explode():
    for schedule in SCHEDULES:
        auto, noise, flow = (run(DPM2Sampler(line=line), schedule)[0] for line in ("auto", "noise", "flow"))
        assert np.array_equal(auto, noise if isinstance(schedule, VarianceExplodingSchedule) else flow)
        assert np.abs(noise - flow).max() > 1e-3


def dpm_solver(schedule, x, t, s, order):
    """One step in the notation of Lu et al. (2022), with schedules of both kinds."""

    def at(lam):
        time = schedule.time_of(f64(2 * lam))
        return float(schedule.alpha(time)), float(schedule.sigma(time))

    def eps(x, lam):
        alpha, sigma = at(lam)
        return (x - alpha * denoise(x / alpha, sigma / alpha)) / sigma

    a, b = (float(schedule.log_snr(f64(time))) / 2 for time in (t, s))
    h, (alpha_t, _), (alpha_s, sigma_s) = b - a, at(a), at(b)
    first = eps(x, a)
    if order == 1:
        return alpha_s / alpha_t * x - sigma_s * math.expm1(h) * first
    if order == 2:
        middle = (a + b) / 2
        alpha, sigma = at(middle)
        u = alpha / alpha_t * x - sigma * math.expm1(h / 2) * first
        return alpha_s / alpha_t * x - sigma_s * math.expm1(h) * eps(u, middle)
    r_1, r_2 = 1 / 3, 2 / 3
    (alpha_1, sigma_1), (alpha_2, sigma_2) = at(a + r_1 * h), at(a + r_2 * h)
    u_1 = alpha_1 / alpha_t * x - sigma_1 * math.expm1(r_1 * h) * first
    d_1 = eps(u_1, a + r_1 * h) - first
    u_2 = alpha_2 / alpha_t * x - sigma_2 * math.expm1(r_2 * h) * first
    u_2 = u_2 - sigma_2 * r_2 / r_1 * (math.expm1(r_2 * h) / (r_2 * h) - 1) * d_1
    d_2 = eps(u_2, a + r_2 * h) - first
    x_s = alpha_s / alpha_t * x - sigma_s * math.expm1(h) * first
    return x_s - sigma_s / r_2 * (math.expm1(h) / h - 1) * d_2


@every_schedule
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_is_algorithms_1_and_2_of_lu_et_al(schedule, order):
    times = UNEVEN[:-1]
    found, y, _ = run(DPMSolverSampler(order), schedule, times)
    x = y * float(schedule.alpha(f64(times[0])))
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = dpm_solver(schedule, x, t, s, order)
    np.testing.assert_allclose(found, x, atol=1e-9)


def test_dpm_solver_2_and_dpm2_on_the_noise_line_are_one_rule():
    for schedule in SCHEDULES:
        found, expected = (run(sampler, schedule)[0] for sampler in (DPMSolverSampler(2), DPM2Sampler(line="noise")))
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("order", [2, 3])
def test_the_rules_for_steps_from_pure_noise_are_of_the_same_order(order):
    schedule, x = FlowSchedule(), torch.from_numpy(np.random.default_rng(3).standard_normal((5, 2)))

    def end(n, order):
        y, times = x, np.linspace(1, 0.4, n + 1).tolist()
        for t, s in zip(times[:-1], times[1:], strict=True):
            y, _ = follow(flow_plan(schedule, t, s, order), oracle(schedule), y, f64(t))
        return y

    exact = end(640, 3)
    misses = [float((end(n, order) - exact).norm()) for n in (40, 80)]
    assert math.log2(misses[0] / misses[1]) == pytest.approx(order, abs=0.15)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_dpmpp_2s_is_algorithm_1_of_lu_et_al_with_the_ancestral_form_of_k_diffusion(schedule, eta):
    found, y, kept = run(DPMSolverPP2SSampler(eta), schedule)
    ks = levels(schedule)
    for i, (here, there) in enumerate(zip(ks[:-1], ks[1:], strict=True)):
        if there == 0:
            y = denoise(y, here)
            continue
        up = eta * math.sqrt(there**2 * (here**2 - there**2) / here**2)
        down = math.sqrt(there**2 - up**2)
        h = math.log(here / down)
        half = math.exp(-h / 2) * y - math.expm1(-h / 2) * denoise(y, here)
        y = math.exp(-h) * y - math.expm1(-h) * denoise(half, here * math.exp(-h / 2))
        if eta:
            y = y + up * kept.array(i)
    np.testing.assert_allclose(found, y, atol=1e-9)


@every_schedule
@pytest.mark.parametrize(("eta", "scale"), [(0.0, 1.0), (0.6, 1.0), (1.0, 1.02)])
def test_dpmpp_sde_moves_both_stages_by_one_brownian_motion(schedule, eta, scale):
    found, y, kept = run(DPMSolverPPSDESampler(eta, scale), schedule)
    ks = levels(schedule)
    for i, (here, there) in enumerate(zip(ks[:-1], ks[1:], strict=True)):
        if there == 0:
            y = denoise(y, here)
            continue
        middle = math.sqrt(here * there)
        ends = []
        for to in (middle, there):
            up = eta * math.sqrt(to**2 * (here**2 - to**2) / here**2)
            ends.append((math.sqrt(to**2 - up**2) / here, scale * up))
        whole, other = (kept.array(i, draw) if eta else np.zeros_like(y) for draw in (0, 1))
        # W(here) - W(middle) given W(here) - W(there), the bridge of a Brownian motion in k, over the root of its length.
        first, rest = here - middle, middle - there
        bridge = (
            first / (here - there) * math.sqrt(here - there) * whole + math.sqrt(first * rest / (here - there)) * other
        )
        (shrink, up), (shrink_all, up_all) = ends
        half = shrink * y + (1 - shrink) * denoise(y, here) + up * bridge / math.sqrt(first)
        y = shrink_all * y + (1 - shrink_all) * denoise(half, middle) + up_all * whole
    np.testing.assert_allclose(found, y, atol=1e-9)


def spread(sampler, n):
    """The standard deviation for N(0, 0.5^2) at the end of a run that starts with the right one, over the right one."""
    schedule, grid = LinearSchedule(), torch.linspace(0.95, 0.1, n + 1, dtype=torch.float64)
    normal = GaussianMixtureOracle(f64([[0.0]]), f64([0.5]), f64([1.0]), schedule)
    first, last = ((schedule.alpha(t) ** 2 / 4 + schedule.sigma(t) ** 2).sqrt() for t in (grid[0], grid[-1]))
    x = torch.zeros(2 * n + 1, 1, dtype=torch.float64)
    x[0] = first

    def noise(like, t, s, draw=0):
        unit = torch.zeros_like(like)
        unit[1 + 2 * int((grid[:-1] == t).nonzero()) + draw] = 1
        return unit

    return float(sample(sampler, normal, x, grid, noise=noise).norm() / last)


def test_the_spread_of_dpmpp_sde_is_right_to_second_order():
    """With independent noises in the two stages it is of first order: 0.984 at 128 steps."""
    misses = [1 - spread(DPMSolverPPSDESampler(), n) for n in (32, 64, 128)]
    assert misses[-1] < 2e-4
    assert np.polyfit(np.log([32, 64, 128]), -np.log(misses), 1)[0] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    "sampler",
    [HeunSampler(), DPM2Sampler(), DPMSolverSampler(3), DPMSolverPP2SSampler()],
    ids=lambda s: s.registered_name,
)
def test_gradients_pass_through_a_step(sampler):
    normal = oracle(FlowSchedule())
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sampler.step(normal, x, f64(0.6), f64(0.3), None).x, x)
