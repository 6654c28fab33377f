"""Moving averages against their closed forms, and averages that are made after training against the exact ones."""

import math

import numpy as np
import pytest

from unnoise.errors import BadOption
from unnoise.training.averages import (
    ExponentialAverage,
    HalfLifeAverage,
    PowerAverage,
    SeveralAverages,
    averages,
    power_exponent,
)
from unnoise.training.posthoc import Profile, dot, reconstruct


def shares(average, steps, batch_size=1):
    """How much the weights after each update count in the average of them all, the first weights before the others."""
    found = np.array([1.0])
    for step in range(steps):
        kept = average.kept(step, batch_size)
        found = np.append(found * kept, 1 - kept)
    return found


@pytest.mark.parametrize("name", list(averages))
def test_shares_are_positive_and_sum_to_one(name):
    found = shares(averages.build(name), 500, 32)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_power_average_is_the_integral_of_its_profile_over_each_update():
    average = PowerAverage(0.1)
    found = shares(average, 200)
    ends = (np.arange(201) / 200) ** (average.gamma + 1)
    np.testing.assert_allclose(found[1:], np.diff(ends), rtol=1e-9, atol=1e-15)
    assert found[0] == 0


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_length_of_a_power_average_is_the_spread_of_its_profile(length):
    gamma = power_exponent(length)
    tau = (np.arange(400_000) + 0.5) / 400_000
    density = (gamma + 1) * tau**gamma
    mean = (density * tau).mean()
    assert math.sqrt((density * (tau - mean) ** 2).mean()) == pytest.approx(length, rel=1e-4)


def test_known_exponents_of_the_paper():
    assert power_exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert power_exponent(0.10) == pytest.approx(6.94, abs=0.005)


def test_a_half_life_is_counted_in_images():
    average = HalfLifeAverage(6400)
    found = shares(average, 2000, 64)
    assert found[-101] / found[-1] == pytest.approx(0.5, rel=1e-9)
    assert average.kept(5000, 128) == pytest.approx(average.kept(5000, 64) ** 2)


def test_the_start_is_forgotten_whatever_the_memory():
    assert ExponentialAverage(0.9999).kept(0, 1) == pytest.approx(0.1)
    assert shares(ExponentialAverage(0.9999), 1000)[0] < 1e-8
    assert ExponentialAverage(0.9).kept(10_000, 1) == 0.9


def test_inner_products_of_profiles_are_their_integrals():
    tau = (np.arange(300_000) + 0.5) / 1000
    for a, length_a, b, length_b in ((300, 0.1, 300, 0.05), (120, 0.05, 300, 0.1), (300, 0.2, 75, 0.28)):
        p = [
            np.where(tau < t, (g + 1) * (tau / t) ** g / t, 0.0)
            for t, g in ((a, power_exponent(length_a)), (b, power_exponent(length_b)))
        ]
        exact = (p[0] * p[1]).sum() / 1000
        assert dot(a, power_exponent(length_a), b, power_exponent(length_b)) == pytest.approx(exact, rel=1e-3)


def trajectory(steps, seed=0):
    """Weights after each update: a walk with a mean, a drift and a wobble, shape (steps, 5)."""
    noise = np.random.default_rng(seed).standard_normal((steps, 5))
    t = np.arange(1, steps + 1)[:, None] / steps
    return 3.0 + np.cumsum(noise, 0) / math.sqrt(steps) + np.log1p(5 * t) + 0.3 * np.sin(40 * t)


def stored(path, lengths, every):
    """Power averages of a trajectory, as they stood every so many updates."""
    found = {}
    for length in lengths:
        average, value = PowerAverage(length), np.zeros(path.shape[1])
        for step, weights in enumerate(path):
            value = value + (1 - average.kept(step, 1)) * (weights - value)
            if (step + 1) % every == 0:
                found[Profile(step + 1, length)] = value
    return found


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.25])
def test_an_average_made_afterwards_is_the_exact_one_within_its_stated_error_which_shrinks(length):
    steps = 2048
    path = trajectory(steps)
    exact = stored(path, [length], steps)[Profile(steps, length)]
    mean = path.mean()
    stated, made = [], []
    for snapshots in (4, 16, 64):
        kept = stored(path, (0.05, 0.1), steps // snapshots)
        found = reconstruct(list(kept), Profile(steps, length))
        assert found.coefficients.sum() == pytest.approx(1.0, abs=1e-9)
        value = sum(c * v for c, v in zip(found.coefficients, kept.values(), strict=True))
        # Cauchy and Schwarz: no trajectory can be off by more than the profile is, times its own size about any constant.
        profile = math.sqrt(dot(steps, power_exponent(length), steps, power_exponent(length)))
        bound = found.error * profile * np.sqrt(((path - mean) ** 2).sum(0))
        assert (np.abs(value - exact) <= bound + 1e-9).all()
        stated.append(found.error)
        made.append(np.abs(value - exact).max())
    assert stated[0] > 4 * stated[1] > 16 * stated[2]
    assert made[0] > made[1] > made[2]
    assert made[2] < 0.005


def test_an_average_that_was_stored_is_found_again():
    profiles = [Profile(100 * k, length) for k in range(1, 41) for length in (0.05, 0.1)]
    found = reconstruct(profiles, Profile(4000, 0.1))
    expected = np.zeros(80)
    expected[-1] = 1
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-8)
    assert found.error < 1e-6


def test_hundreds_of_snapshots_make_no_numbers_too_large():
    profiles = [Profile(10_000 * k, length) for k in range(1, 401) for length in (0.05, 0.1)]
    found = reconstruct(profiles, Profile(4_000_000, 0.15))
    assert found.error < 1e-4
    assert np.abs(found.coefficients).max() < 1


@pytest.mark.parametrize(
    ("spec", "names", "described"),
    [
        (0.999, ["exponential-0.999"], 0.999),
        ("0.99", ["exponential-0.99"], 0.99),
        ({"name": "power"}, ["power-0.1"], ["power-0.1"]),
        ("halflife-20000", ["halflife-20000"], ["halflife-20000"]),
        (
            [0.999, {"name": "power", "length": 0.05}, "power-0.25", "halflife"],
            ["exponential-0.999", "power-0.05", "power-0.25", "halflife-500000"],
            ["exponential-0.999", "power-0.05", "power-0.25", "halflife-500000"],
        ),
    ],
)
def test_averages_are_asked_for_by_memory_by_name_or_in_a_list(spec, names, described):
    built = SeveralAverages("average").build(spec, "ema")
    assert [average.name for average in built] == names
    assert SeveralAverages("average").describe(built) == described
    assert SeveralAverages("average").build(described, "ema") == built


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (1.5, r"ema\.memory: must be at most 0\.999999, got 1\.5"),
        ("power-0.5", r"ema\.length: must be at most 0\.28"),
        ("pwer-0.1", r"no average is called 'pwer-0\.1'; did you mean 'power'"),
        (["power-0.1", "power-0.1"], "none twice"),
        ([], "expected one average or more"),
        (None, r"expected a memory such as 0\.999"),
        (True, r"expected a memory such as 0\.999"),
    ],
)
def test_what_is_no_average_is_refused_in_one_line(spec, message):
    with pytest.raises(BadOption, match=message):
        SeveralAverages("average").build(spec, "ema")
