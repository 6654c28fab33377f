"""Grids against the lists and formulas of the papers."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from unnoise.errors import BadOption, UnknownName
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.scaled_linear import ScaledLinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.samplers import grids


def levels(n, spacing):
    *times, last = (grids.discrete(n, 1000, spacing) * 1000).tolist()
    assert last == 0
    return [round(t - 1, 9) for t in times]


def test_trailing_spacing_is_that_of_lin_et_al():
    assert levels(10, "trailing") == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert levels(3, "trailing") == [999, 666, 332]
    assert levels(1, "trailing") == [999]


def test_leading_spacing_is_that_of_ddim():
    assert levels(10, "leading") == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert levels(3, "leading") == [666, 333, 0]
    assert levels(1, "leading") == [0]


def test_linspace_takes_both_ends():
    assert levels(10, "linspace") == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert levels(3, "linspace")[::2] == [999, 0]
    assert levels(1, "linspace") == [999]


@pytest.mark.parametrize("total", [1000, 37, 10])
def test_every_count_gives_levels_at_distances_that_differ_by_rounding_alone(total):
    for spacing in ("trailing", "leading", "linspace"):
        for n in range(1, total + 1):
            times = grids.discrete(n, total, spacing) * total
            counts = [round(each) for each in times.tolist()]
            np.testing.assert_allclose(times.numpy(), counts, rtol=0, atol=1e-9)
            *counts, last = counts
            assert (last, len(set(counts))) == (0, n)
            if n > 1:
                assert np.ptp(np.diff(counts)) <= 1
            # Where each is said to begin and to end, whatever n is.
            if spacing == "leading":
                assert counts[-1] == 1
                assert total - counts[0] == math.ceil(total / n) - 1
            else:
                assert counts[0] == total
            if spacing == "linspace" and n > 1:
                assert counts[-1] == 1
            if spacing == "trailing":
                assert abs(counts[-1] - total / n) <= 0.5


def test_an_unknown_spacing_or_grid_is_named():
    with pytest.raises(UnknownName, match="trailing"):
        grids.discrete(3, 10, "trailling")
    with pytest.raises(UnknownName, match="did you mean 'karras'"):
        grids.make_grid("karas", 3, FlowSchedule())


EXPLODING = [(0.002, 80.0), (0.01, 20.0), (0.5, 80.0), (2.0, 700.0), (0.002, 1000.0)]


@pytest.mark.parametrize("schedule", [VarianceExplodingSchedule(low, high) for low, high in EXPLODING], ids=str)
@pytest.mark.parametrize("rho", [3.0, 7.0])
def test_karras_is_equation_5_on_the_variance_exploding_schedule(schedule, rho):
    n, low, high = 18, schedule.sigma_min, schedule.sigma_max
    expected = (high ** (1 / rho) + np.arange(n) / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    sigma = schedule.sigma(grids.karras(n, schedule, rho))
    np.testing.assert_allclose(sigma[:-1].numpy(), expected, rtol=1e-9)
    assert float(sigma[-1]) == 0


def test_karras_on_stable_diffusions_schedule_is_that_of_k_diffusion():
    schedule, n = ScaledLinearSchedule(), 10
    grid = grids.karras(n, schedule)[:-1]
    found = (schedule.sigma(grid) / schedule.alpha(grid)).numpy()
    low, high = 0.029167, 14.614642
    expected = (high ** (1 / 7) + np.arange(n) / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_log_snr_makes_equal_steps_down_to_the_smallest_trained_time():
    schedule = ScaledLinearSchedule()
    grid = grids.log_snr(12, schedule)[:-1]
    steps = schedule.log_snr(grid).diff()
    torch.testing.assert_close(steps, steps.mean().expand(11), rtol=1e-9, atol=0)
    assert float(grid[-1]) == pytest.approx(schedule.t_min, rel=1e-12)


def test_a_later_start_makes_equal_steps_from_there():
    for schedule in (FlowSchedule(), LinearSchedule(), CosineSchedule()):
        grid = grids.log_snr(9, schedule, start=0.7)[:-1]
        steps = schedule.log_snr(grid).diff()
        torch.testing.assert_close(steps, steps.mean().expand(8), rtol=1e-9, atol=0)
        assert float(grid[0]) == 0.7


def test_the_angle_grid_mixes_angle_and_logarithm():
    schedule = ScaledLinearSchedule()
    log_snr = schedule.log_snr(grids.angle(9, schedule, sigma_data=0.5)[:-1])
    place = 0.1 * log_snr / 2 - 0.9 * torch.atan(torch.exp(-log_snr / 2) / 0.5)
    # Interpolated in a table of 4001 places.
    torch.testing.assert_close(place.diff(), place.diff().mean().expand(8), rtol=1e-4, atol=0)
    assert math.exp(-float(log_snr[-1]) / 2) / 0.5 == pytest.approx(5 / 81, rel=1e-9)
    few, many = (schedule.log_snr(grids.angle(n, schedule)[-2]) for n in (2, 3000))
    assert math.exp(-float(few) / 2) == pytest.approx(1.0, rel=1e-9)
    assert float(many) == pytest.approx(
        float(schedule.log_snr(torch.tensor(schedule.t_min, dtype=torch.float64))), rel=1e-9
    )


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_kl_optimal_is_theorem_3_1_of_align_your_steps(sigma_data):
    schedule, n = VarianceExplodingSchedule(), 12
    ends = np.arctan(80 / sigma_data), np.arctan(0.002 / sigma_data)
    expected = np.tan(ends[0] + (ends[1] - ends[0]) * np.arange(n) / (n - 1)) * sigma_data
    found = schedule.sigma(grids.kl_optimal(n, schedule, sigma_data)[:-1]).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    np.testing.assert_allclose(np.arctan(found / sigma_data), np.arctan(expected / sigma_data), atol=2e-5)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (1.0, 1.0), (2.0, 0.7), (3.0, 5.0)])
def test_beta_times_are_the_quantiles_that_scipy_knows(a, b):
    expected = scipy.stats.beta.ppf(np.linspace(1, 0, 16), a, b)
    np.testing.assert_allclose(grids.beta(15, a, b).numpy(), expected, atol=3e-6)


def test_exponential_is_log_snr_at_rho_1_and_its_power_elsewhere():
    schedule = ScaledLinearSchedule()
    torch.testing.assert_close(grids.exponential(9, schedule), grids.log_snr(9, schedule), rtol=1e-12, atol=0)
    log_snr = schedule.log_snr(grids.exponential(9, schedule, rho=2.0)[:-1])
    share = (log_snr - log_snr[-1]) / (log_snr[0] - log_snr[-1])
    torch.testing.assert_close(share.sqrt().diff(), torch.full((8,), -1 / 8, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_a_grid_can_be_given_with_its_options_or_as_times():
    schedule = LinearSchedule()
    with_options = grids.make_grid({"name": "karras", "rho": 3.0}, 7, schedule)
    assert torch.equal(with_options, grids.karras(7, schedule, rho=3.0))
    assert grids.make_grid([0.9, 0.25], 2, schedule).tolist() == [0.9, 0.25, 0.0]
    assert torch.equal(grids.make_grid("angle", 7, schedule, sigma_data=0.4), grids.angle(7, schedule, 0.4))
    with pytest.raises(BadOption, match="the times given make 2 steps, and 5 were asked for"):
        grids.make_grid([0.9, 0.25], 5, schedule)


def test_wrong_times_are_named():
    with pytest.raises(BadOption, match=r"expected times in \[0, 1\], got entry 0 = 1.2, entry 2 = -0.1"):
        grids.explicit([1.2, 0.5, -0.1])
    with pytest.raises(BadOption, match=r"do not lie below the one before: entry 2 = 0\.7"):
        grids.explicit([0.9, 0.5, 0.7, 0.2])


def test_explicit_times_get_their_zero():
    assert grids.explicit([0.9, 0.25]).tolist() == [0.9, 0.25, 0.0]
    assert grids.explicit([1, 0]).tolist() == [1.0, 0.0]
    for wrong in ([], [0.5, 0.6], [1.2], [math.nan], [0.5, -0.1]):
        with pytest.raises(ValueError, match="expected"):
            grids.explicit(wrong)


def test_discrete_grids_need_levels():
    with pytest.raises(BadOption, match="FlowSchedule has no levels"):
        grids.make_grid("trailing", 5, FlowSchedule())
