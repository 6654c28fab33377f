"""Multistep samplers against scalar transcriptions of the papers, which keep every x and integrate numerically."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.base import scales
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample, toward, trajectory
from unnoise.samplers.deis import DEISSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.dpmpp_3m import DPMSolverPP3MSampler
from unnoise.samplers.lms import LMSSampler
from unnoise.samplers.plms import PLMSSampler
from unnoise.samplers.sa_solver import SASolverSampler
from unnoise.samplers.unipc import UniPCSampler

MEAN, VARIANCE = 1.0, 0.25
SCHEDULE = FlowSchedule()
EVEN = [0.9 - 0.08 * i for i in range(11)]
UNEVEN = [0.9, 0.87, 0.85, 0.82, 0.8, 0.77, 0.74, 0.72, 0.69, 0.67, 0.64]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def oracle(schedule=SCHEDULE):
    return GaussianMixtureOracle(f64([[MEAN]]), f64([VARIANCE**0.5]), f64([1.0]), schedule)


def run(sampler, times, x=0.7, noise=None):
    return float(sample(sampler, oracle(), f64([[x]]), f64(times), noise=noise))


# The same in plain numbers: flow matching's process, and the exact estimate for N(MEAN, VARIANCE)


def alpha(t):
    return 1 - t


def clean(x, t):
    return MEAN + alpha(t) * VARIANCE / (alpha(t) ** 2 * VARIANCE + t**2) * (x - alpha(t) * MEAN)


def eps(x, t):
    return (x - alpha(t) * clean(x, t)) / t


def half_log_snr(t):
    return math.log(alpha(t) / t)


def lagrange(nodes, j, at):
    return math.prod((at - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j)


def adams(order, times, x, slope, scale, place, rate):
    """Adams and Bashforth for y = x / scale(t), whose slope times rate(p) is dy / dp for p = place(t).

    The first steps are made anew from the very start whenever a slope more is known.
    """

    def integral(known, slopes, t, s):
        nodes = [place(time) for time in known]
        weights = [
            quad(lambda p, j=j: lagrange(nodes, j, p) * rate(p), place(t), place(s))[0] for j in range(len(nodes))
        ]
        return float(np.dot(weights, slopes))

    y, slopes = [x / scale(times[0])], []
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        slopes.append(slope(y[i] * scale(t), t))
        if order >= 3 and 0 < i < order - 1:
            for k in range(i):
                y[k + 1] = y[k] + integral(times[: i + 1], slopes, times[k], times[k + 1])
        first = max(0, i + 1 - order)
        y.append(y[i] + integral(times[first : i + 1], slopes[first:], t, s))
        if order == 4 and i == 0:
            ahead = slope(y[1] * scale(s), s)
            y[1] = y[0] + integral(times[:2], [slopes[0], ahead], t, s)
    return y[-1] * scale(times[-1])


def on_noise(order, times, x, polynomial):
    place, rate = {
        "rho": (lambda t: t / alpha(t), lambda k: 1.0),
        "t": (lambda t: t, lambda t: 1 / alpha(t) ** 2),
        "log": (half_log_snr, lambda p: -math.exp(-p)),
    }[polynomial]
    return adams(order, times, x, eps, alpha, place, rate)


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_adams_and_bashforth_in_sigma_over_alpha(order, times):
    assert run(LMSSampler(order), times) == pytest.approx(on_noise(order, times, 0.7, "rho"), rel=1e-10)


@pytest.mark.parametrize("polynomial", ["t", "rho", "log"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_integrates_a_polynomial_of_the_noise(order, polynomial):
    expected = on_noise(order, UNEVEN, 0.7, polynomial)
    assert run(DEISSampler(order, polynomial), UNEVEN) == pytest.approx(expected, rel=1e-10)


def test_lms_has_the_weights_of_adams_where_sigma_over_alpha_falls_evenly():
    k = np.linspace(1.2, 0.3, 10)
    y, slopes, times = [], [], [float(v / (1 + v)) for v in k]
    steps = list(trajectory(LMSSampler(4), oracle(), f64([[0.7]]), f64(times)))
    y = [0.7 / alpha(times[0]), *(float(s.x) / alpha(t) for s, t in zip(steps, times[1:], strict=True))]
    slopes = [(y[i] * alpha(t) - alpha(t) * float(steps[i].denoised)) / t for i, t in enumerate(times[:-1])]
    for i in (4, 5, 6, 7):
        expected = np.dot([55, -59, 37, -9], slopes[i : i - 4 : -1]) / 24 * (k[i + 1] - k[i])
        assert y[i + 1] - y[i] == pytest.approx(expected, rel=1e-9)


# DPM-Solver++ of third order


def exponential(known, lam, end):
    """The integral of e^lambda times the Lagrange polynomial of every known place, from lam to end."""
    return [quad(lambda v, j=j: math.exp(v) * lagrange(known, j, v), lam, end)[0] for j in range(len(known))]


def test_dpmpp_3m_integrates_the_parabola_of_the_estimate():
    """After the start, which is the second order's midpoint rule, with the first step corrected by the trapezoid's."""
    times, lam = UNEVEN, [half_log_snr(t) for t in UNEVEN]
    estimates, y = [], [0.7 / times[0]]
    for i, s in enumerate(times[1:]):
        estimates.append(clean(y[i] * times[i], times[i]))
        if i == 1:
            y[1] = y[0] + float(np.dot(exponential(lam[:2], lam[0], lam[1]), estimates))
        whole = alpha(s) / s - alpha(times[i]) / times[i]
        if i < 2:
            share = (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1]) / 2 if i else 0.0
            y.append(y[i] + whole * ((1 + share) * estimates[i] - share * estimates[i - 1]))
        else:
            y.append(y[i] + float(np.dot(exponential(lam[i - 2 : i + 1], lam[i], lam[i + 1]), estimates[-3:])))
    assert run(DPMSolverPP3MSampler(), times) == pytest.approx(y[-1] * times[-1], rel=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_3m_is_the_closed_form_with_the_second_difference_in_full(eta):
    """The formulas of k-diffusion, with twice their weight of the second difference."""
    times, lam = UNEVEN, [half_log_snr(t) for t in UNEVEN]
    sampler = DPMSolverPP3MSampler(sde=True, eta=eta)
    steps = list(
        trajectory(sampler, oracle(), f64([[0.7]]), f64(times), noise=lambda like, t, s, draw=0: 0 * like + 0.3)
    )
    for i in range(3, 10):
        d, d_1, d_2 = (float(steps[i - k].denoised) for k in range(3))
        h, r_0, r_1 = lam[i + 1] - lam[i], *((lam[i - k] - lam[i - k - 1]) / (lam[i + 1] - lam[i]) for k in (0, 1))
        first, second = (d - d_1) / r_0, (d_1 - d_2) / r_1
        slope, bend = first + (first - second) * r_0 / (r_0 + r_1), (first - second) / (r_0 + r_1)
        h_eta = (1 + eta) * h
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        phi_3 = phi_2 / h_eta - 0.5
        estimate = -math.expm1(-h_eta) * d + phi_2 * slope - 2 * phi_3 * bend
        s, t = times[i + 1], times[i]
        expected = s / t * math.exp(-eta * h) * float(steps[i - 1].x) + alpha(s) * estimate
        expected += 0.3 * s * math.sqrt(-math.expm1(-2 * eta * h))
        assert float(steps[i].x) == pytest.approx(expected, rel=1e-10)


def test_with_two_estimates_the_sde_is_that_of_the_second_order():
    def noise(like, t, s, draw=0):
        return torch.full_like(like, math.sin(100 * t))

    expected = run(DPMSolverPPSampler(sde=True), UNEVEN, noise=noise)
    assert run(SASolverSampler(2, 0, 1.0), UNEVEN, noise=noise) == pytest.approx(expected, rel=1e-12)
    first = run(DPMSolverPPSampler(order=1, sde=True), UNEVEN[:2], noise=noise)
    assert run(DPMSolverPP3MSampler(sde=True), UNEVEN[:2], noise=noise) == pytest.approx(first, rel=1e-12)
    assert run(DPMSolverPP3MSampler(sde=True, eta=0.0), UNEVEN) == run(DPMSolverPP3MSampler(), UNEVEN)


# PLMS


def pseudo(times, x, warmup):
    """PNDM's algorithm on even times."""

    def transfer(x, e, t, s):
        return alpha(s) / alpha(t) * x + (s - alpha(s) / alpha(t) * t) * e

    kept = []
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        e, middle = eps(x, t), (t + s) / 2
        kept.append(e)
        if warmup == "runge_kutta" and i < 3:
            second = eps(transfer(x, e, t, middle), middle)
            third = eps(transfer(x, second, t, middle), middle)
            fourth = eps(transfer(x, third, t, s), s)
            mean = (e + 2 * second + 2 * third + fourth) / 6
        elif i == 0:
            mean = (e + eps(transfer(x, e, t, s), s)) / 2
        else:
            weights = {1: (3 / 2, -1 / 2), 2: (23 / 12, -16 / 12, 5 / 12)}.get(i, (55 / 24, -59 / 24, 37 / 24, -9 / 24))
            mean = float(np.dot(weights, kept[: -len(weights) - 1 : -1]))
        x = transfer(x, mean, t, s)
    return x


@pytest.mark.parametrize("warmup", ["plms", "runge_kutta"])
def test_plms_has_the_papers_weights_where_the_times_are_even(warmup):
    assert run(PLMSSampler(warmup), EVEN) == pytest.approx(pseudo(EVEN, 0.7, warmup), rel=1e-10)


# UniPC


def unipc(times, x, order, variant, corrector):
    """Algorithms 5 and 6 with the linear systems of the paper."""
    lam, estimates, kept = [half_log_snr(t) for t in times], [], x

    def solved(h, ratios):
        size = len(ratios)
        b_h = -h if variant == "bh1" else math.expm1(-h)
        phi, factorial, right = math.expm1(-h) / -h - 1, 1, []
        for k in range(1, size + 1):
            right.append(phi * factorial / b_h)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        matrix = np.array([[r**k for r in ratios] for k in range(size)])
        return b_h, (np.array([0.5]) if size == 1 else np.linalg.solve(matrix, right))

    for i in range(len(times) - 1):
        estimates.append(clean(x, times[i]))
        if corrector and i:
            h, used = lam[i] - lam[i - 1], min(order, i)
            others = [*range(i - 2, i - 1 - used, -1), i]
            b_h, shares = solved(h, [(lam[j] - lam[i - 1]) / h for j in others])
            differences = [(estimates[j] - estimates[i - 1]) / ((lam[j] - lam[i - 1]) / h) for j in others]
            t, before = times[i], times[i - 1]
            x = t / before * kept - alpha(t) * (math.expm1(-h) * estimates[i - 1] + b_h * float(shares @ differences))
        kept, (t, s), h = x, times[i : i + 2], lam[i + 1] - lam[i]
        x = s / t * kept - alpha(s) * math.expm1(-h) * estimates[i]
        others = list(range(i - 1, max(i - order, -1), -1))
        if others:
            ratios = [(lam[j] - lam[i]) / h for j in others]
            b_h, shares = solved(h, ratios)
            differences = [(estimates[j] - estimates[i]) / r for j, r in zip(others, ratios, strict=True)]
            x -= alpha(s) * b_h * float(shares @ differences)
    return x


@pytest.mark.parametrize("corrector", [True, False])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2])
def test_unipc_is_the_papers_algorithm(order, variant, corrector):
    found = run(UniPCSampler(order, corrector, variant), UNEVEN)
    assert found == pytest.approx(unipc(UNEVEN, 0.7, order, variant, corrector), rel=1e-9)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_of_third_order_is_the_papers_algorithm(variant):
    found = run(UniPCSampler(3, True, variant), UNEVEN)
    assert found == pytest.approx(unipc(UNEVEN, 0.7, 3, variant, True), rel=1e-9)


# SA-Solver


def stochastic_adams(times, x, order, corrector_order, tau_of):
    """Algorithm 1: predictor and corrector both from the x of the step before, with the same noise."""
    lam, estimates, kept, drawn = [half_log_snr(t) for t in times], [], x, 0.0

    def moved(x, i, others):
        tau, t, s, h = tau_of(times[i]), times[i], times[i + 1], lam[i + 1] - lam[i]
        nodes = [lam[j] for j in others]

        def weight(j):
            def inside(v):
                return (1 + tau**2) * math.exp(-(tau**2) * (lam[i + 1] - v) + v) * lagrange(nodes, j, v)

            return s * quad(inside, lam[i], lam[i + 1])[0]

        shares = [weight(j) for j in range(len(nodes))]
        if len(nodes) == 2 and others[0] == i:
            # The weights of DPM-Solver++ (2M), as the authors' code has them.
            ratio = h / (nodes[0] - nodes[1]) / 2
            shares = [sum(shares) * (1 + ratio), -sum(shares) * ratio]
        known = float(np.dot(shares, [estimates[j] for j in others]))
        return s / t * math.exp(-(tau**2) * h) * x + known, s * math.sqrt(-math.expm1(-2 * tau**2 * h))

    for i, t in enumerate(times[:-1]):
        estimates.append(clean(x, t))
        if corrector_order and i:
            others = list(range(i, max(i - corrector_order, -1), -1))
            x = moved(kept, i - 1, others)[0] + drawn
        kept = x
        x, spread = moved(x, i, list(range(i, max(i - order, -1), -1)))
        drawn = spread * math.sin(100 * t)
        x += drawn
    return x


@pytest.mark.parametrize(("order", "corrector_order"), [(1, 0), (1, 2), (2, 1), (2, 2), (2, 3), (3, 3), (3, 4)])
@pytest.mark.parametrize(("tau", "interval"), [(0.0, (0.0, 1.0)), (1.0, (0.0, 1.0)), (0.7, (0.4, 0.7))])
def test_sa_solver_is_the_papers_algorithm(order, corrector_order, tau, interval):
    asked = []

    def noise(like, t, s, draw=0):
        asked.append(t)
        return torch.full_like(like, math.sin(100 * t))

    def tau_of(t):
        return tau if interval[0] <= t <= interval[1] else 0.0

    found = run(SASolverSampler(order, corrector_order, tau, interval), UNEVEN, noise=noise)
    assert found == pytest.approx(stochastic_adams(UNEVEN, 0.7, order, corrector_order, tau_of), rel=1e-9)
    assert asked == [t for t in UNEVEN[:-1] if tau_of(t) > 0]


# What they share


class Fixed(Denoiser):
    """Gives one estimate."""

    def __init__(self, schedule, estimate):
        super().__init__()
        self.schedule, self.estimate = schedule, estimate

    def forward(self, x_t, t, cond=None):
        return self.estimate


DETERMINISTIC = [
    DPMSolverPPSampler(),
    DPMSolverPP3MSampler(),
    *(LMSSampler(order) for order in (1, 2, 3, 4)),
    *(DEISSampler(order, polynomial) for order in (2, 3, 4) for polynomial in ("t", "log")),
    PLMSSampler(),
    PLMSSampler("runge_kutta"),
    *(UniPCSampler(order, corrector, v) for order in (1, 2, 3) for corrector in (True, False) for v in ("bh1", "bh2")),
    SASolverSampler(3, 3, 0.0),
]


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [LinearSchedule(), CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()],
    ids=lambda s: type(s).__name__,
)
def test_an_estimate_that_stands_still_is_integrated_exactly(sampler, schedule):
    x_0, noise = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(t):
        return scales(schedule, t)[0] * x_0 + scales(schedule, t)[1] * noise

    for times in (EVEN, UNEVEN, [1.0, 0.999, 0.98, 0.6, 0.55, 0.5, 0.1, 0.09], [1.0, 0.7, 0.3, 0.2, 0.0]):
        steps = trajectory(sampler, Fixed(schedule, x_0), at(times[0]), f64(times))
        for stepped, s in zip(steps, times[1:], strict=True):
            torch.testing.assert_close(stepped.x, at(s), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [DPMSolverPP3MSampler(), LMSSampler(4), DEISSampler(4), UniPCSampler(3)], ids=str)
def test_a_leap_after_short_steps_is_not_extrapolated_into(sampler):
    """From the half log-SNR 0.2 to 5, where the parabola through 0, 0.1 and 0.2 would reach 50 steps ahead."""
    schedule = FlowSchedule()
    times = [1 / (1 + math.exp(v)) for v in (-0.1, 0.0, 0.1, 0.2, 5.0)]
    steps = list(trajectory(sampler, oracle(), f64([[0.7]]), f64(times)))
    x = steps[-2].x
    euler = toward(oracle()(x, f64(times[-2])), x, schedule, times[-2], times[-1])
    # UniPC's corrector moves x by 1e-6 first.
    torch.testing.assert_close(steps[-1].x, euler, rtol=0, atol=1e-5)


def test_calls_beyond_one_a_step_are_those_of_the_start():
    for n, rk in ((1, 1), (2, 5), (3, 9), (4, 13), (20, 29)):
        grid = grids.uniform(n)
        assert PLMSSampler("runge_kutta").network_calls(grid) == rk
        for sampler in (PLMSSampler(), LMSSampler(4), DEISSampler(4)):
            assert sampler.network_calls(grid) == n + (n > 1)
        for sampler in (LMSSampler(3), DEISSampler(3), DPMSolverPP3MSampler(), UniPCSampler(), SASolverSampler()):
            assert sampler.network_calls(grid) == n


@pytest.mark.parametrize("sampler", [LMSSampler(4), UniPCSampler(3)], ids=str)
def test_what_is_of_fourth_order_is_about_sixteen_times_better_with_twice_the_steps(sampler):
    start, end = 0.9, 0.2
    spread = [(alpha(t) ** 2 * VARIANCE + t**2) ** 0.5 for t in (start, end)]
    exact = alpha(end) * MEAN + spread[1] / spread[0] * (0.7 - alpha(start) * MEAN)
    errors = [abs(run(sampler, np.linspace(start, end, n + 1).tolist()) - exact) for n in (128, 256)]
    # UniPC's first step leaves an error of third order, which these counts do not yet see.
    assert 3.6 < math.log2(errors[0] / errors[1]) < 4.3
