"""Likelihoods, against closed forms and against what every density must do."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy import stats

from unnoise.codecs.base import Codec
from unnoise.codecs.identity import IdentityCodec
from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.edm import EDMDenoiser
from unnoise.denoisers.oracle import DatasetOracle, GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.evaluation.intervals import half_widths, mean_interval, student_factor
from unnoise.evaluation.likelihood import Moments, bits_per_dim, dequantised, log_likelihood, log_volume
from unnoise.nn.mlp import MLP, MLPConfig
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.tabulated import TabulatedSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

SCHEDULES = [
    LinearSchedule(), CosineSchedule(), FlowSchedule(shift=3.0), VarianceExplodingSchedule(),
    LinearSchedule().zero_terminal_snr(), TabulatedSchedule((0.95, 0.7, 0.4, 0.15, 0.03)),
]  # fmt: skip
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{type(s).__name__} {s.num_steps}")
CLEAN, NOISE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return GaussianMixtureOracle(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule, [0, 1, 1])


def wide(schedule, size=20):
    """Two clusters in many dimensions, between which the Jacobian is far from round."""
    means = torch.zeros(2, size, dtype=torch.float64)
    means[0, : size // 2], means[1, : size // 2] = 0.35, -0.35
    return GaussianMixtureOracle(means, f64([0.5, 0.3]), f64([0.5, 0.5]), schedule)


# Closed forms


@on_schedules
def test_the_likelihood_of_a_mixture_is_the_closed_form(schedule):
    oracle = mixture(schedule)
    x = torch.cat([oracle.sample(20, 3), f64([[3.0, 3.0], [-2.5, 0.0]])])
    found = log_likelihood(oracle, x, prior=lambda z: oracle.log_prob(z, NOISE))
    torch.testing.assert_close(found.log_prob, oracle.log_prob(x, CLEAN), rtol=0, atol=1e-4)
    assert found.probes == 0
    assert bool((found.half_width == 0).all())


@on_schedules
def test_the_default_prior_is_where_samplers_start(schedule):
    """For normal data the flow is affine, so that what it makes of N(0, sigma^2) is known."""
    mean, std = f64([0.7, -0.4, 0.2]), 0.5
    oracle = GaussianMixtureOracle(mean[None], f64([std]), f64([1.0]), schedule)
    alpha, sigma = float(schedule.alpha(NOISE)), float(schedule.sigma(NOISE))
    stretch = std / math.hypot(alpha * std, sigma)
    made = torch.distributions.Normal(mean - stretch * alpha * mean, stretch * sigma)
    x = oracle.sample(8)
    found = log_likelihood(oracle, x)
    torch.testing.assert_close(found.log_prob, made.log_prob(x).sum(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.noise, alpha * mean + (x - mean) / stretch, rtol=1e-4, atol=1e-4)
    normal = torch.distributions.Normal(f64(0.0), f64(sigma))
    torch.testing.assert_close(found.prior, normal.log_prob(found.noise).sum(1), rtol=1e-12, atol=1e-12)


@on_schedules
def test_the_moments_of_the_data_give_the_prior_of_normal_data(schedule):
    oracle = GaussianMixtureOracle(f64([[0.7, -0.4]]), f64([0.5]), f64([1.0]), schedule)
    x = oracle.sample(8)
    found = log_likelihood(oracle, x, prior=Moments(f64([0.7, -0.4]), 0.25 * torch.eye(2)))
    torch.testing.assert_close(found.log_prob, oracle.log_prob(x, CLEAN), rtol=0, atol=1e-4)


def test_the_error_falls_with_the_tolerance():
    oracle = mixture(FlowSchedule())
    x = oracle.sample(20, 3)
    errors = [
        float((log_likelihood(oracle, x, rtol=tol, atol=tol).log_prob - oracle.log_prob(x, CLEAN)).abs().max())
        for tol in (1e-3, 1e-5, 1e-7)
    ]
    assert errors[2] < 1e-7
    assert errors[1] < 0.1 * errors[0]


def test_the_likelihood_given_a_label_is_that_of_its_class():
    oracle = mixture(LinearSchedule())
    x, cond = oracle.sample(12), {"label": torch.arange(12) % 3}
    found = log_likelihood(oracle, x, cond=cond, prior=lambda z: oracle.log_prob(z, NOISE, cond))
    torch.testing.assert_close(found.log_prob, oracle.log_prob(x, CLEAN, cond), rtol=0, atol=1e-4)


def test_pictures_are_points_of_many_numbers():
    class Pictures(Denoiser):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.schedule = inner, inner.schedule

        def forward(self, x_t, t, cond=None):
            return self.inner(x_t.flatten(1), t).reshape(x_t.shape)

    oracle = wide(FlowSchedule(), 12)
    x = oracle.sample(5)
    found = log_likelihood(Pictures(oracle), x.reshape(5, 3, 2, 2))
    torch.testing.assert_close(found.log_prob, oracle.log_prob(x, CLEAN), rtol=0, atol=1e-4)
    assert found.noise.shape == (5, 3, 2, 2)


# Every density integrates to 1


def cells(reach, n):
    edge = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.cartesian_prod(edge, edge), float(edge[1] - edge[0]) ** 2


@pytest.mark.parametrize(
    "schedule", [LinearSchedule(), VarianceExplodingSchedule(0.02, 10.0)], ids=["linear", "exploding"]
)
def test_the_density_of_a_network_integrates_to_1(schedule):
    torch.manual_seed(0)
    denoiser = EDMDenoiser(MLP((2,), config=MLPConfig(width=16, depth=1)), schedule)
    for weight in denoiser.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    x, area = cells(5.5, 90)
    density = log_likelihood(denoiser, x, rtol=1e-4, atol=1e-4).log_prob.exp()
    assert float(density.sum()) * area == pytest.approx(1, abs=1e-3)
    assert float(density.max()) > 0.2  # it is a hill, and not the prior's plain


def test_the_density_of_a_mixture_integrates_to_1():
    x, area = cells(6.0, 60)
    density = log_likelihood(mixture(LinearSchedule()), x, rtol=1e-4, atol=1e-4).log_prob.exp()
    assert float(density.sum()) * area == pytest.approx(1, abs=1e-3)


def test_data_of_single_points_has_a_density_too_and_it_integrates_to_1():
    """Where the score has no limit it stands still below t_start, and what flows along it stays a density."""
    points = DatasetOracle(f64([[-1.0], [0.4], [1.1]]), FlowSchedule())
    x = torch.linspace(-3, 3, 1501, dtype=torch.float64)[:, None]
    for t_start in (0.05, 0.03):
        found = log_likelihood(points, x, t_start=t_start, rtol=1e-4, atol=1e-4)
        assert float(found.log_prob.exp().sum()) * 0.004 == pytest.approx(1, abs=1e-3)


# Probes


class Correlated(Denoiser):
    """The exact denoiser of a normal distribution whose numbers go together in all directions."""

    def __init__(self, schedule, size=24):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        axes = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
        self.variances, self.axes, self.schedule = torch.linspace(0.1, 1.5, size).double() ** 2, axes, schedule

    def forward(self, x_t, t, cond=None):
        alpha, sigma = (f(t).reshape(-1, 1) for f in (self.schedule.alpha, self.schedule.sigma))
        pull = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        return (x_t @ self.axes * pull) @ self.axes.T

    def distribution(self):
        covariance = self.axes @ torch.diag(self.variances) @ self.axes.T
        return torch.distributions.MultivariateNormal(torch.zeros(len(covariance)).double(), covariance)


def test_intervals_over_the_probes_hold_the_exact_value_as_often_as_they_say():
    oracle = Correlated(FlowSchedule())
    torch.manual_seed(0)
    x = oracle.distribution().sample((300,))
    exact = oracle.distribution().log_prob(x)
    found = log_likelihood(oracle, x, rtol=1e-3, atol=1e-3, probes=6)
    assert found.probes == 6
    error = found.log_prob - exact
    assert (
        0.91 <= float((error.abs() <= found.half_width).double().mean()) <= 0.985
    )  # 95 % of 300, and 3 standard errors
    assert abs(float(error.mean())) < 3.5 * float(error.std()) / len(x) ** 0.5
    assert float(error.std()) > 0.3  # the probes are not exact here, so that there is something to hold
    torch.testing.assert_close(log_likelihood(oracle, x[:9], probes=0).log_prob, exact[:9], rtol=0, atol=1e-3)


def test_probes_are_the_samples_own():
    oracle = wide(FlowSchedule())
    x = oracle.sample(4)
    together = log_likelihood(oracle, x, indices=[7, 3, 900, 4], seed=2)
    assert together.probes == 4
    alone = log_likelihood(oracle, x[2:3], indices=[900], seed=2)
    torch.testing.assert_close(alone.log_prob[0], together.log_prob[2], rtol=1e-10, atol=1e-10)
    assert int(alone.evaluations) == int(together.evaluations[2])
    # One that has arrived leaves, and the others keep their own.
    far = torch.cat([0.01 * x[:1], x + 0.6])
    several = log_likelihood(oracle, far, indices=range(5))
    assert len(set(several.evaluations.tolist())) > 1
    for i in range(5):
        alone = log_likelihood(oracle, far[i : i + 1], indices=[i])
        torch.testing.assert_close(alone.log_prob[0], several.log_prob[i], rtol=1e-10, atol=1e-10)
    alone, other = (log_likelihood(oracle, x[2:3], indices=[i], seed=2) for i in (900, 901))
    assert abs(float(other.log_prob - alone.log_prob)) > 1e-3
    assert bool(log_likelihood(oracle, x[:1], probes=1).half_width.isinf())


def test_many_probes_come_to_the_exact_divergence():
    oracle = wide(FlowSchedule())
    x = oracle.sample(2)
    found = log_likelihood(oracle, x, probes=150, rtol=1e-3, atol=1e-3)
    exact = oracle.log_prob(x, CLEAN)
    assert bool(((found.log_prob - exact).abs() < 2 * found.half_width).all())
    assert float(found.half_width.max()) < 0.25


# In the units of the data


def test_a_scaled_density_is_that_of_scaled_data():
    codec = IdentityCodec((0.5, -1.0), (2.0, 0.25))
    oracle = mixture(FlowSchedule())
    z = oracle.sample(6)
    x = codec.decode(z)
    numbers = log_likelihood(oracle, codec.encode(x)).log_prob + log_volume(codec, (2,))
    expected = oracle.log_prob(z, CLEAN) - math.log(2.0) - math.log(0.25)
    torch.testing.assert_close(numbers, expected, rtol=0, atol=1e-4)
    assert log_volume(IdentityCodec.pixels(), (3, 4, 4)) == pytest.approx(-48 * math.log(127.5))


def test_a_codec_that_bends_has_no_density():
    @dataclass(frozen=True)
    class Squares(Codec):
        def encode(self, x):
            return x**2

        def decode(self, z):
            return z.sqrt()

    with pytest.raises(IncompatibleParts, match="'Squares' does more than shift and scale"):
        log_volume(Squares(), (2,))


def test_whole_numbers_lie_anywhere_in_the_cell_that_is_rounded_to_them():
    x = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    inside = dequantised(x, 4, range(50))
    assert torch.equal(inside.round(), x.double())
    offset = (inside - x.double()).flatten()
    assert stats.kstest(offset.numpy(), "uniform", (-0.5, 1)).pvalue > 1e-3
    torch.testing.assert_close(dequantised(x[7:8], 4, [7]), inside[7:8], rtol=0, atol=0)
    assert not torch.equal(dequantised(x[7:8], 5, [7]), inside[7:8])


def test_uniform_bytes_cost_eight_bits():
    assert bits_per_dim(12 * math.log(256), 12) == pytest.approx(8)


# Intervals


def test_student_factors_are_those_of_scipy():
    for degrees in (1, 2, 3, 5, 9, 10, 11, 12, 15, 30, 99, 10_000):
        assert student_factor(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=5e-6)
    assert student_factor(0) == math.inf


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = f64([1.0, 4.0, 2.5, 7.0, 3.0])
    low, high = stats.t.interval(0.95, 4, values.mean(), values.std() / 5**0.5)
    found = mean_interval(values)
    assert (found.low, found.high, found.value, found.n) == (pytest.approx(low), pytest.approx(high), 3.5, 5)
    assert float(half_widths(values[None])) == pytest.approx(found.half_width)
    assert mean_interval(values[:1]).half_width == math.inf
    with pytest.raises(ShapeError):
        mean_interval(values[:0])


# What is refused


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (torch.zeros(3), {}, ShapeError, r"expected samples of shape \(B, ...\), got \(3,\)"),
        (torch.zeros(3, 2), {"indices": [1]}, ShapeError, "expected 3 indices"),
        (torch.zeros(3, 2), {"t_start": 0.0}, BadOption, "t_start"),
        (torch.zeros(3, 2), {"t_start": 1.0}, BadOption, "t_start"),
        (torch.zeros(3, 2), {"probes": -1}, BadOption, "probes: must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(x, options, error, words):
    with pytest.raises(error, match=words):
        log_likelihood(mixture(FlowSchedule()), x, **options)
