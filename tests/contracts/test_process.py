"""What every schedule must do, over the whole registry."""

import itertools
import json
import math

import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts
from unnoise.process.base import log_snr_at, scales, schedules, time_at
from unnoise.process.forward import FROM_X_0, TO_X_0, add_noise, convert

ZERO, ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


def inner_times(schedule):
    """Times inside the segments of the schedule, never on a level."""
    if schedule.num_steps is None:
        return torch.linspace(0.013, 0.987, 57, dtype=torch.float64)
    segments = torch.linspace(0, schedule.num_steps - 1, min(schedule.num_steps, 57), dtype=torch.float64).floor()
    return (segments + 0.37) / schedule.num_steps


def test_clean_data_is_exactly_clean(schedule):
    assert float(schedule.alpha(ZERO)) == 1
    assert float(schedule.sigma(ZERO)) == 0
    assert float(schedule.log_snr(ZERO)) == math.inf


def test_noise_drowns_the_signal_at_the_end(schedule):
    # The short tables of this suite keep a little more than real ones do.
    assert float(schedule.sigma(ONE)) > 5 * float(schedule.alpha(ONE)) >= 0


def test_the_log_snr_falls_strictly(schedule):
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    log_snr = schedule.log_snr(t)
    assert bool((log_snr[1:] < log_snr[:-1]).all())
    assert not bool(log_snr.isnan().any())
    assert bool(log_snr[1:-1].isfinite().all())


def test_values_are_float64_of_the_shape_of_the_times(schedule):
    for shape in ((), (3,), (2, 5)):
        t = torch.full(shape, 0.4, dtype=torch.float64)
        for method in (schedule.alpha, schedule.sigma, schedule.alpha_dot, schedule.sigma_dot, schedule.log_snr):
            assert method(t).shape == shape
            assert method(t).dtype == torch.float64


@pytest.mark.parametrize("quantity", ["alpha", "sigma"])
def test_derivatives_are_finite_differences(schedule, quantity):
    value, rate = getattr(schedule, quantity), getattr(schedule, quantity + "_dot")
    t, h = inner_times(schedule), 1e-6
    difference = (value(t + h) - value(t - h)) / (2 * h)
    # The difference of two values of size s is good to about 1e-16 s / h, and to h^2 times the third derivative.
    scale = float(value(ONE).abs() + 1)
    torch.testing.assert_close(rate(t), difference, rtol=1e-6, atol=1e-8 * scale)


def test_everything_is_finite_at_both_ends(schedule):
    for t in (ZERO, ONE):
        for method in (schedule.alpha, schedule.sigma, schedule.alpha_dot, schedule.sigma_dot, schedule.noise_level):
            assert bool(method(t).isfinite())


def test_the_wronskian_is_positive_so_that_the_velocity_fixes_the_clean_data(schedule):
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    wronskian = schedule.alpha(t) * schedule.sigma_dot(t) - schedule.alpha_dot(t) * schedule.sigma(t)
    assert bool((wronskian > 0).all())


def test_time_of_inverts_the_log_snr(schedule):
    t = torch.cat([torch.linspace(1e-4, 0.995, 400, dtype=torch.float64), torch.tensor([schedule.t_min])])
    torch.testing.assert_close(schedule.time_of(schedule.log_snr(t)), t, rtol=1e-9, atol=1e-9)


def test_time_of_ends_at_the_ends(schedule):
    inf = torch.tensor(math.inf, dtype=torch.float64)
    assert float(schedule.time_of(inf)) == 0
    assert float(schedule.time_of(-inf)) == pytest.approx(1, abs=1e-12)
    beyond = schedule.time_of(torch.tensor([80.0, -80.0], dtype=torch.float64))
    assert 0 <= float(beyond[0]) < 1e-6
    assert float(beyond[1]) == pytest.approx(1, abs=1e-9)


def test_t_min_has_noise_in_it(schedule):
    assert 0 < schedule.t_min < 1
    assert float(schedule.sigma(torch.tensor(schedule.t_min, dtype=torch.float64))) > 0


def test_the_noise_level_rises_to_about_a_thousand_or_the_last_index(schedule):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    level = schedule.noise_level(t)
    assert bool((level.diff() > 0).all())
    assert float(level[-1]) == pytest.approx(schedule.num_steps - 1 if schedule.num_steps else 1000, abs=1e-9)


def test_vanishing_says_whether_alpha_ends_at_zero(schedule):
    assert schedule.vanishing == (float(schedule.alpha(ONE)) == 0)


def test_the_remembered_values_are_the_values(schedule):
    for t in (0.0, schedule.t_min, 0.3, 1.0):
        at = torch.tensor(t, dtype=torch.float64)
        assert scales(schedule, t) == (float(schedule.alpha(at)), float(schedule.sigma(at)))
        assert log_snr_at(schedule, t) == pytest.approx(float(schedule.log_snr(at)), rel=1e-12)
    assert time_at(schedule, 0.7) == float(schedule.time_of(torch.tensor(0.7, dtype=torch.float64)))


def test_a_schedule_survives_its_description(schedule):
    spec = json.loads(json.dumps(schedules.describe(schedule)))
    assert schedules.build(spec) == schedule
    assert hash(schedules.build(spec)) == hash(schedule)


# Discrete schedules


def test_levels_stand_at_their_times(discrete_schedule):
    s = discrete_schedule
    t = torch.arange(1, s.num_steps + 1, dtype=torch.float64) / s.num_steps
    torch.testing.assert_close(s.alpha(t) ** 2, s.alpha_bars, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(s.sigma(t) ** 2, 1 - s.alpha_bars, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(s.noise_level(t), torch.arange(s.num_steps, dtype=torch.float64), rtol=1e-12, atol=1e-9)


def test_betas_and_alpha_bars_say_the_same(discrete_schedule):
    s = discrete_schedule
    assert s.betas.shape == s.alpha_bars.shape == (s.num_steps,)
    assert s.betas.dtype == s.alpha_bars.dtype == torch.float64
    torch.testing.assert_close(torch.cumprod(1 - s.betas, 0), s.alpha_bars, rtol=1e-9, atol=1e-14)
    assert bool((s.betas > 0).all())
    assert bool((s.betas <= 1).all())


def test_discrete_schedules_preserve_the_variance_everywhere(discrete_schedule):
    t = torch.linspace(0, 1, 999, dtype=torch.float64)
    power = discrete_schedule.alpha(t) ** 2 + discrete_schedule.sigma(t) ** 2
    torch.testing.assert_close(power, torch.ones_like(t), rtol=0, atol=1e-14)


def test_a_zero_terminal_snr_is_exactly_zero_and_keeps_the_first_level(discrete_schedule):
    shifted = discrete_schedule.zero_terminal_snr()
    assert shifted.num_steps == discrete_schedule.num_steps
    assert shifted.vanishing
    assert float(shifted.alpha(ONE)) == 0
    assert float(shifted.alpha_bars[-1]) == 0
    assert float(shifted.alpha_bars[0]) == pytest.approx(float(discrete_schedule.alpha_bars[0]), rel=1e-14)
    assert shifted.zero_terminal_snr().alpha_bars.tolist() == pytest.approx(shifted.alpha_bars.tolist(), rel=1e-12)


# Conversions


@pytest.mark.parametrize("shape", [(2, 2), (3, 2, 2, 3)], ids=["points, batch = dimension", "images, batch = width"])
def test_every_description_converts_to_every_other(schedule, shape):
    generator = torch.Generator().manual_seed(3)
    x_0, eps = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    t = torch.linspace(0.1, 0.9, shape[0], dtype=torch.float64)

    def over(values):
        return values.reshape(-1, *[1] * (len(shape) - 1))

    alpha, sigma = over(schedule.alpha(t)), over(schedule.sigma(t))
    truth = {
        "noise": eps,
        "x0": x_0,
        "v": alpha * eps - sigma * x_0,
        "score": -eps / sigma,
        "velocity": over(schedule.alpha_dot(t)) * x_0 + over(schedule.sigma_dot(t)) * eps,
    }
    assert truth.keys() == TO_X_0.keys() == FROM_X_0.keys()
    x_t = alpha * x_0 + sigma * eps
    torch.testing.assert_close(add_noise(x_0, eps, schedule, t), x_t, rtol=1e-12, atol=1e-12)
    # Dividing by alpha or sigma enlarges the rounding of x_t by 1 / min(alpha, sigma).
    rounding = 1e-13 * float((1 + sigma.max()) / torch.minimum(alpha, sigma).min() ** 2)
    for have, want in itertools.product(TO_X_0, FROM_X_0):
        converted = convert(truth[have], x_t, schedule, t, have=have, want=want)
        atol = rounding * float(truth[want].abs().max() + 1)
        torch.testing.assert_close(converted, truth[want], rtol=1e-9, atol=atol, msg=f"{have} to {want}: {{}}".format)


@pytest.mark.parametrize("have", ["noise", "score"])
def test_noise_and_score_are_refused_where_no_signal_is_left(schedule, have):
    x = torch.ones(2, 3, dtype=torch.float64)
    if not schedule.vanishing:
        assert bool(convert(x, x, schedule, ONE, have=have, want="x0").isfinite().all())
        return
    with pytest.raises(IncompatibleParts, match="no signal is left"):
        convert(x, x, schedule, ONE, have=have, want="x0")


@pytest.mark.parametrize("have", ["v", "velocity", "x0"])
def test_v_and_velocity_and_x_0_fix_the_clean_data_even_in_pure_noise(schedule, have):
    x_0, eps = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.alpha(ONE), schedule.sigma(ONE)
    value = {
        "v": alpha * eps - sigma * x_0,
        "velocity": schedule.alpha_dot(ONE) * x_0 + schedule.sigma_dot(ONE) * eps,
        "x0": x_0,
    }
    found = convert(value[have], alpha * x_0 + sigma * eps, schedule, ONE, have=have, want="x0")
    # Variance exploding: sigma 80 and its rate lose about three digits.
    torch.testing.assert_close(found, x_0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("want", ["noise", "v", "score", "velocity"])
def test_there_is_no_noise_to_speak_of_in_clean_data(schedule, want):
    x = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(IncompatibleParts, match="t = 0"):
        convert(x, x, schedule, ZERO, have="x0", want=want)


def test_an_option_that_is_not_a_number_is_refused(schedule):
    spec = schedules.describe(schedule)
    for name, value in spec.items():
        if isinstance(value, float):
            with pytest.raises(BadOption, match=name):
                schedules.build(spec | {name: math.nan})
