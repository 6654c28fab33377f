"""The forward SDE against its closed forms, and its simulation against alpha and sigma."""

import math

import pytest
import torch

from unnoise.errors import IncompatibleParts
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.sde import ForwardSDE
from unnoise.process.sub_vp import SubVPSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.process.vp import VPSchedule

TIMES = torch.cat([torch.tensor([0.0, 1e-9, 1e-4]), torch.linspace(0.01, 0.99, 30)]).double()


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_vp_sde_is_that_of_the_paper_down_to_clean_data():
    beta = 0.1 + 19.9 * TIMES
    sde = ForwardSDE(VPSchedule())
    torch.testing.assert_close(sde.drift_rate(TIMES), -beta / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(sde.diffusion_squared(TIMES), beta, rtol=1e-9, atol=0)
    torch.testing.assert_close(sde.diffusion(TIMES), beta.sqrt(), rtol=1e-9, atol=0)


def test_the_sub_vp_sde_is_that_of_the_paper():
    beta, integral = 0.1 + 19.9 * TIMES, 0.1 * TIMES + 19.9 / 2 * TIMES**2
    sde = ForwardSDE(SubVPSchedule())
    torch.testing.assert_close(sde.drift_rate(TIMES), -beta / 2, rtol=1e-12, atol=0)
    expected = beta * -torch.expm1(-2 * integral)
    torch.testing.assert_close(sde.diffusion_squared(TIMES), expected, rtol=1e-9, atol=1e-12)


def test_the_sde_of_added_noise_has_no_drift_and_grows_as_the_variance():
    schedule, h = VarianceExplodingSchedule(), 1e-7
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    sde = ForwardSDE(schedule)
    assert float(sde.drift_rate(t).abs().max()) == 0
    rate = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(sde.diffusion_squared(t), rate, rtol=1e-6, atol=0)


def test_the_sde_of_the_straight_path():
    sde = ForwardSDE(FlowSchedule())
    torch.testing.assert_close(sde.drift_rate(TIMES), -1 / (1 - TIMES))
    torch.testing.assert_close(sde.diffusion_squared(TIMES), 2 * TIMES / (1 - TIMES), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "schedule",
    [LinearSchedule(), CosineSchedule(), VPSchedule(), SubVPSchedule(), FlowSchedule(), VarianceExplodingSchedule()],
    ids=lambda schedule: schedule.registered_name,
)
def test_mean_and_variance_of_the_simulated_process_are_alpha_and_sigma(schedule):
    """Exactly, as Euler and Maruyama's rule moves them: x -> (1 + f h) x + g sqrt(h) z."""
    sde, end = ForwardSDE(schedule), 0.9

    def gaps(n):
        t = torch.arange(n, dtype=torch.float64) * (end / n)
        growth, added = 1 + sde.drift_rate(t) * (end / n), sde.diffusion_squared(t) * (end / n)
        after = growth.flip(0).cumprod(0).flip(0) / growth  # what becomes of a step's noise in the steps after it
        mean, variance = float(growth.prod()), float((after**2 * added).sum())
        at = f64(end)
        return [mean / float(schedule.alpha(at)) - 1, variance / float(schedule.sigma(at)) ** 2 - 1]

    coarse, fine = gaps(20_000), gaps(40_000)
    for a, b in zip(coarse, fine, strict=True):
        assert abs(b) < 2e-3
        assert b == pytest.approx(a / 2, rel=0.05, abs=1e-9)  # first order


def test_a_simulated_cloud_spreads_as_it_should():
    schedule, n, steps = VPSchedule(), 20_000, 200
    sde, generator = ForwardSDE(schedule), torch.Generator().manual_seed(0)
    x = f64([[1.5, -0.5]]).expand(n, 2)
    for k in range(steps):
        t = f64(k / steps * 0.4)
        z = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        x = x + sde.drift(x, t) * (0.4 / steps) + float(sde.diffusion(t)) * math.sqrt(0.4 / steps) * z
    alpha, sigma = float(schedule.alpha(f64(0.4))), float(schedule.sigma(f64(0.4)))
    # 4.5 standard errors, and half a percent for the steps.
    torch.testing.assert_close(x.mean(0), alpha * f64([1.5, -0.5]), rtol=0.01, atol=4.5 * sigma / n**0.5)
    torch.testing.assert_close(x.std(0), f64([sigma, sigma]), rtol=0.005 + 4.5 / (2 * n) ** 0.5, atol=0)


def test_each_sample_has_its_own_time():
    sde, x = ForwardSDE(VPSchedule()), torch.ones(2, 2, dtype=torch.float64)
    found = sde.drift(x, f64([0.1, 0.9]))
    torch.testing.assert_close(found, f64([[-1.045, -1.045], [-9.005, -9.005]]))


def test_there_is_no_sde_where_no_signal_is_left():
    sde = ForwardSDE(FlowSchedule())
    for rate in (sde.drift_rate, sde.diffusion_squared, sde.diffusion):
        with pytest.raises(IncompatibleParts, match="no signal is left"):
            rate(f64(1.0))
