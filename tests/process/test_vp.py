"""The continuous VP and sub-VP schedules against the chain they come from, and against arithmetic of fifty digits."""

from decimal import Decimal, localcontext

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.process.linear import LinearSchedule
from unnoise.process.sub_vp import SubVPSchedule
from unnoise.process.vp import VPSchedule

BOTH = [VPSchedule(), SubVPSchedule(), VPSchedule(0.4, 7.0), SubVPSchedule(3.0, 3.0), SubVPSchedule(8.0, 1.0)]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def exact(schedule, t):
    """Alpha, sigma and the rate of sigma, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        low, high, t = Decimal(schedule.beta_min), Decimal(schedule.beta_max), Decimal(t)
        beta, integral = low + t * (high - low), t * low + t * t * (high - low) / 2
        rest = 1 - (-integral).exp()
        if isinstance(schedule, VPSchedule):
            return (-integral / 2).exp(), rest.sqrt(), beta * (-integral).exp() / (2 * rest.sqrt())
        return (-integral / 2).exp(), rest, beta * (-integral).exp()


@pytest.mark.parametrize("schedule", BOTH, ids=str)
@pytest.mark.parametrize("t", [1e-11, 1e-7, 1e-3, 0.05, 0.5, 1.0])
def test_no_digit_is_lost_down_to_clean_data(schedule, t):
    found = [float(method(f64(t))) for method in (schedule.alpha, schedule.sigma, schedule.sigma_dot)]
    assert found == pytest.approx([float(value) for value in exact(schedule, t)], rel=1e-13)


@pytest.mark.parametrize("schedule", BOTH, ids=str)
def test_the_time_comes_back_with_all_its_digits(schedule):
    t = torch.logspace(-9, 0, 400, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_of(schedule.log_snr(t)), t, rtol=1e-11, atol=0)


def test_the_worked_numbers_of_the_paper():
    # B(1) = (0.1 + 20) / 2 and B(1/2) = 0.05 + 2.4875
    assert float(VPSchedule().alpha(f64(1.0))) == pytest.approx(0.0065716, abs=5e-8)
    assert float(VPSchedule().alpha(f64(0.5))) == pytest.approx(0.2811829, abs=5e-8)
    assert float(VPSchedule().sigma(f64(0.5)) ** 2) == pytest.approx(1 - 0.2811829**2, abs=1e-7)
    assert float(SubVPSchedule().sigma(f64(0.5))) == pytest.approx(1 - 0.2811829**2, abs=1e-7)


def test_ddpms_chain_with_ever_more_levels_becomes_the_vp_sde():
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    vp = 2 * VPSchedule().alpha(t).log()
    gaps = []
    for n in (1000, 10_000, 100_000):
        chain = 2 * LinearSchedule(n, 0.1 / n, 20 / n).alpha(t).log()
        gaps.append(float((chain - vp).abs().max()))
    # The last of them, sum of beta^2 / 2 over the levels, is 67 / n.
    assert gaps == pytest.approx([0.067, 0.0067, 0.00067], rel=0.05)


def test_the_noise_of_the_sub_vp_sde_is_the_square_and_never_more():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    vp, sub = VPSchedule(), SubVPSchedule()
    torch.testing.assert_close(sub.sigma(t), vp.sigma(t) ** 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(vp.alpha(t) ** 2 + vp.sigma(t) ** 2, torch.ones_like(t), rtol=1e-15, atol=1e-15)
    assert torch.equal(sub.alpha(t), vp.alpha(t))


def test_grids_end_where_a_hundredth_of_noise_is_in():
    assert VPSchedule().t_min == pytest.approx(1e-3, rel=0.1)
    for schedule in BOTH:
        assert float(schedule.sigma(f64(schedule.t_min))) == pytest.approx(1e-2, rel=1e-12)


def test_a_beta_without_size_is_refused():
    with pytest.raises(BadOption, match="beta_min"):
        VPSchedule(beta_min=0.0)
    with pytest.raises(BadOption, match="beta_max"):
        SubVPSchedule(beta_max=-1.0)
