"""The exact denoisers against integrals, gradients and brute force."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.oracle import DatasetOracle, GaussianMixtureOracle
from unnoise.errors import BadOption, ShapeError
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.sigmoid import SigmoidSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

SCHEDULES = [LinearSchedule(), FlowSchedule(), SigmoidSchedule(), VarianceExplodingSchedule()]
MEANS, STDS, WEIGHTS = (-1.1, 0.2, 1.5), (0.3, 0.6, 0.2), (0.5, 0.2, 0.3)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def line(schedule, **options):
    """A mixture of three normals on the line; its weights need not sum to 1."""
    return GaussianMixtureOracle(f64(MEANS)[:, None], f64(STDS), 4 * f64(WEIGHTS), schedule, **options)


def plane(schedule, labels=(0, 1, 1)):
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return GaussianMixtureOracle(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule, labels)


def normal(x, mean, std):
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
@pytest.mark.parametrize("label", [None, 0, 1, 2])
def test_the_mixtures_posterior_mean_and_density_are_integrals(schedule, label):
    oracle = line(schedule, labels=(0, 1, 1))
    cond = None if label is None else {"label": torch.tensor([label])}
    allowed = [label in (None, 2, owner) for owner in (0, 1, 1)]
    grid = np.linspace(-8, 8, 160_001)
    weights = np.array(WEIGHTS) * allowed
    prior = sum(w * normal(grid, m, s) for w, m, s in zip(weights / weights.sum(), MEANS, STDS, strict=True))
    step = grid[1] - grid[0]
    for time in (0.05, 0.4, 0.8, 1.0):
        t = f64(time)
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        x = 0.6 * alpha + 0.5 * sigma
        joint = prior * normal(x, alpha * grid, sigma)
        assert float(oracle(f64([[x]]), t, cond)) == pytest.approx(
            (joint * grid).sum() / joint.sum(), rel=1e-7, abs=1e-9
        )
        assert float(oracle.log_prob(f64([[x]]), t, cond)) == pytest.approx(math.log(joint.sum() * step), abs=1e-7)


@pytest.mark.parametrize("time", [0.02, 0.3, 0.9])
def test_the_density_integrates_to_one(time):
    axis = torch.linspace(-7, 7, 561, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    for label in (None, 0, 1):
        cond = None if label is None else {"label": torch.full((len(points),), label)}
        density = plane(LinearSchedule()).log_prob(points, f64(time), cond).exp()
        assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_the_score_is_the_gradient_of_the_density_and_gives_the_denoiser_by_tweedie(schedule):
    oracle = plane(schedule)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for t in (f64(0.01), f64(0.5), f64(0.99), f64([0.01, 0.5, 0.99])):
        for cond in (None, {"label": torch.tensor([0, 1, 2])}):
            (gradient,) = torch.autograd.grad(oracle.log_prob(x, t, cond).sum(), x)
            score = oracle.score(x, t, cond).detach()
            torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-10)
            alpha, sigma = (v if v.ndim == 0 else v[:, None] for v in (schedule.alpha(t), schedule.sigma(t)))
            torch.testing.assert_close(
                ((x + sigma**2 * score) / alpha).detach(), oracle(x, t, cond).detach(), rtol=1e-7, atol=1e-7
            )


def test_each_sample_has_its_own_time_and_label_when_batch_dimension_and_components_agree():
    means = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    oracle = GaussianMixtureOracle(means, f64([0.2, 0.5, 0.9]), f64([0.2, 0.5, 0.3]), FlowSchedule(), (0, 1, 0))
    x = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    t, label = f64([0.1, 0.5, 0.9]), torch.tensor([0, 1, 2])
    for function in (oracle, oracle.score, oracle.log_prob):
        together = function(x, t, {"label": label})
        for i in range(3):
            alone = function(x[i : i + 1], t[i], {"label": label[i : i + 1]})
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_the_null_condition_is_no_condition():
    oracle = plane(FlowSchedule())
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    null = oracle.null_condition(4)
    assert null["label"].tolist() == [2] * 4
    torch.testing.assert_close(oracle(x, f64(0.5), null), oracle(x, f64(0.5)), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(oracle.log_prob(x, f64(0.5), null), oracle.log_prob(x, f64(0.5)), rtol=1e-13, atol=1e-13)
    assert plane(FlowSchedule(), None).null_condition(4) == {}


@pytest.mark.parametrize("label", [None, 0, 1])
def test_samples_have_the_moments_of_the_mixture(label):
    oracle = plane(FlowSchedule())
    n = 40_000
    x = oracle.sample(n, seed=3, label=label)
    shares = f64([0.5, 0.2, 0.3]) * f64([label in (None, owner) for owner in (0, 1, 1)])
    shares = shares / shares.sum()
    mean = (shares[:, None] * oracle.means).sum(0)
    second = (shares[:, None] * (oracle.means**2 + oracle.stds[:, None] ** 2)).sum(0)
    std = (second - mean**2).sqrt()
    assert x.dtype == torch.float64
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=4.5 * float(std.max()) / n**0.5)
    torch.testing.assert_close(x.std(0), std, rtol=0, atol=4.5 * float(std.max()) / n**0.5)
    torch.testing.assert_close(oracle.sample(50, seed=3, label=label), x[:50], rtol=0, atol=0)
    assert not torch.equal(oracle.sample(50, seed=4, label=label), x[:50])


def test_bad_mixtures_are_refused():
    with pytest.raises(ShapeError, match="means"):
        GaussianMixtureOracle(torch.zeros(2, 1), torch.ones(3), torch.ones(2), FlowSchedule())
    with pytest.raises(BadOption, match="positive"):
        GaussianMixtureOracle(torch.zeros(2, 1), torch.ones(2), torch.tensor([1.0, 0.0]), FlowSchedule())
    with pytest.raises(ShapeError, match=r"\(B, 2\)"):
        plane(FlowSchedule())(torch.zeros(4, 3), f64(0.5))
    with pytest.raises(ShapeError, match="labels"):
        plane(FlowSchedule())(torch.zeros(4, 2), f64(0.5), {"label": torch.tensor([1])})


# The oracle of a finite data set


def brute(points, x, alpha, sigma, keep=None):
    distance = ((x[:, None] - alpha * points[None]) ** 2).flatten(2).sum(-1)
    logits = -0.5 * distance / sigma**2
    if keep is not None:
        logits[~keep] = -np.inf
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return np.tensordot(shares, points, 1)


class Flat(np.ndarray):
    """An array that flattens as a tensor does."""

    def flatten(self, first):
        return self.reshape(*self.shape[:first], -1)


def flat(tensor):
    return tensor.numpy().view(Flat)


@pytest.mark.parametrize("shape", [(2,), (1, 3, 2)], ids=["points", "images"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
@pytest.mark.parametrize("block", [1, 7, 8192])
def test_the_data_sets_oracle_is_a_softmax_over_the_data(shape, schedule, block):
    generator = torch.Generator().manual_seed(0)
    points, x = (
        torch.randn(30, *shape, dtype=torch.float64, generator=generator),
        torch.randn(2, *shape, dtype=torch.float64, generator=generator),
    )
    labels = torch.arange(30) // 15
    oracle = DatasetOracle(points, schedule, labels)
    oracle.block = block
    for time in (0.1, 0.5, 1.0):
        t = f64(time)
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        expected = brute(flat(points), flat(x), alpha, sigma)
        np.testing.assert_allclose(oracle(x, t).numpy(), expected, rtol=1e-9, atol=1e-10)
        # with a small block, the second label's samples come after blocks with none of them
        for cond in ([1, 0], [2, 1]):
            keep = np.array([[c in (2, int(label)) for label in labels] for c in cond])
            found = oracle(x, t, {"label": torch.tensor(cond)})
            np.testing.assert_allclose(
                found.numpy(), brute(flat(points), flat(x), alpha, sigma, keep), rtol=1e-9, atol=1e-10
            )


def test_every_sample_of_the_data_sets_oracle_has_its_own_time():
    points = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    oracle, t = DatasetOracle(points, FlowSchedule()), f64([0.2, 0.6, 1.0])
    together = oracle(points[:3], t)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], oracle(points[i : i + 1], t[i]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.registered_name)
def test_without_noise_the_nearest_sample_is_meant(schedule):
    points = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = points[:20] + 1e-3
    nearest = points[torch.cdist(x, points).argmin(1)]
    for time in (0.0, 1e-6):
        torch.testing.assert_close(DatasetOracle(points, schedule)(x, f64(time)), nearest, rtol=0, atol=1e-9)


def test_pure_noise_means_the_mean_of_the_data():
    points = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = DatasetOracle(points, FlowSchedule())(torch.randn(3, 2, dtype=torch.float64), f64(1.0))
    torch.testing.assert_close(found, points.mean(0).expand(3, 2), rtol=0, atol=1e-12)


def test_the_data_sets_oracle_keeps_dtype_and_refuses_another_shape():
    oracle = DatasetOracle(torch.zeros(5, 2), FlowSchedule(), torch.zeros(5, dtype=torch.int64), 10)
    assert oracle(torch.zeros(3, 2), f64(0.5)).dtype == torch.float32
    assert oracle.null_condition(2)["label"].tolist() == [10, 10]
    with pytest.raises(ShapeError, match=r"\(B, 2"):
        oracle(torch.zeros(3, 1), f64(0.5))
