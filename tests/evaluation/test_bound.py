"""The variational bound, against the chain's own terms and the exact likelihood that it bounds."""

import math

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.evaluation.bound import variational_bound
from unnoise.process.chain import MarkovChain
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.randomness import address, normal_like

SHORT = LinearSchedule(40, 1e-3, 0.3)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return GaussianMixtureOracle(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule, [0, 1, 1])


def noise(schedule, x, seed=0):
    return torch.stack([normal_like(address(seed, "bound", k), range(len(x)), x) for k in range(schedule.num_steps)])


class WithVariance(Denoiser):
    """An oracle that says that it has learned a variance too."""

    def __init__(self, oracle, fraction):
        super().__init__()
        self.oracle, self.schedule, self.fraction = oracle, oracle.schedule, fraction

    def forward(self, x_t, t, cond=None):
        return self.oracle(x_t, t, cond)

    def with_variance(self, x_t, t, cond=None):
        return self(x_t, t, cond), torch.full_like(x_t, self.fraction)


@pytest.mark.parametrize("bin_width", [None, 2 / 255])
@pytest.mark.parametrize("fraction", [None, 0.0, 0.3])
def test_the_terms_are_those_of_the_chain(fraction, bin_width):
    oracle = mixture(SHORT)
    x = (oracle.sample(6, 1) * 127.5).round().clamp(-127, 127) / 127.5
    denoiser = oracle if fraction is None else WithVariance(oracle, fraction)
    found = variational_bound(denoiser, x, bin_width=bin_width)

    def denoise(x_t, t):
        return oracle(x_t, t), torch.full_like(x_t, 1.0 if fraction is None else fraction)

    expected = MarkovChain(SHORT).vlb_terms(x, noise(SHORT, x), denoise, bin_width)
    torch.testing.assert_close(found.levels, expected[:-1].T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.prior, expected[-1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.total, expected.sum(0), rtol=1e-9, atol=1e-9)
    assert bool((found.standard_error == 0).all())


def expected_terms(schedule, std, fraction):
    """The mean of every term for N(0, std^2) and its exact denoiser, and the mean of L_T; each a number."""
    alpha_bars, betas = schedule.alpha_bars, schedule.betas
    before = torch.cat([f64([1.0]), alpha_bars[:-1]])
    posterior = betas * (1 - before) / (1 - alpha_bars)
    variance = torch.exp(fraction * betas.log() + (1 - fraction) * posterior.clamp(min=float(posterior[1])).log())
    unknown = std**2 * (1 - alpha_bars) / (alpha_bars * std**2 + 1 - alpha_bars)  # the variance of x_0 given x_k
    squared = before * (betas / (1 - alpha_bars)) ** 2 * unknown
    terms = 0.5 * (variance.log() - posterior.log() + (posterior + squared) / variance - 1)
    terms[0] = 0.5 * ((2 * math.pi * variance[0]).log() + squared[0] / variance[0])
    last = alpha_bars[-1]
    return terms, 0.5 * (last * std**2 - last - (1 - last).log())


@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_every_term_is_on_average_what_it_is_for_normal_data(fraction):
    oracle = GaussianMixtureOracle(f64([[0.0]]), f64([0.5]), f64([1.0]), SHORT)
    x = oracle.sample(6000, 1)
    found = variational_bound(WithVariance(oracle, fraction), x)
    terms, prior = expected_terms(SHORT, 0.5, fraction)
    for of_level, expected in zip([*found.levels.T, found.prior], [*terms, prior], strict=True):
        assert abs(float(of_level.mean() - expected)) < 4.5 * float(of_level.std()) / len(x) ** 0.5
    if fraction == 1:
        torch.testing.assert_close(variational_bound(oracle, x[:50]).levels, found.levels[:50])


def test_it_lies_above_the_entropy_and_with_beta_closest():
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    for schedule, gap in ((LinearSchedule(), 0.02), (CosineSchedule(), 0.02), (SHORT, 0.3)):
        beta, posterior = (float(sum(part.sum() for part in expected_terms(schedule, 0.5, f))) for f in (1.0, 0.0))
        assert entropy < beta < min(entropy + gap, posterior)


def test_it_does_not_depend_on_the_batch_or_on_how_many_are_evaluated_at_once():
    oracle = mixture(SHORT)
    x = oracle.sample(5, 3)
    whole = variational_bound(oracle, x, seed=4, indices=[9, 2, 30, 4, 5])
    pieces = variational_bound(oracle, x, seed=4, indices=[9, 2, 30, 4, 5], at_once=7)
    torch.testing.assert_close(pieces.levels, whole.levels, rtol=1e-12, atol=1e-12)
    assert (whole.calls, pieces.calls) == (1, 29)  # 200 pairs
    alone = variational_bound(oracle, x[2:3], seed=4, indices=[30])
    torch.testing.assert_close(alone.levels[0], whole.levels[2], rtol=1e-12, atol=1e-12)
    drawn = variational_bound(oracle, x, seed=4, indices=[9, 2, 30, 4, 5], num_levels=6)
    one = variational_bound(oracle, x[2:3], seed=4, indices=[30], num_levels=6)
    torch.testing.assert_close(one.levels[0], drawn.levels[2], rtol=1e-12, atol=1e-12)


def test_a_condition_reaches_the_denoiser():
    oracle = mixture(SHORT)
    x, label = oracle.sample(4, 1), torch.tensor([0, 1, 1, 0])
    found = variational_bound(oracle, x, cond={"label": label}, at_once=9)
    expected = MarkovChain(SHORT).vlb_terms(
        x, noise(SHORT, x), lambda x_t, t: (oracle(x_t, t, {"label": label}), torch.ones_like(x_t))
    )
    torch.testing.assert_close(found.levels, expected[:-1].T, rtol=1e-9, atol=1e-9)


def test_drawn_levels_give_the_bound_on_average_and_know_their_error():
    oracle = mixture(SHORT)
    x = oracle.sample(1, 1).expand(1500, -1)
    whole, drawn = (variational_bound(oracle, x, num_levels=n) for n in (None, 9))
    gap = drawn.total - whole.total
    assert abs(float(gap.mean())) < 3.5 * float(gap.std()) / len(x) ** 0.5
    # The same noise stands behind both, so that the gap holds the drawing alone; shares keep it below what chance would give.
    assert 0.6 < float(gap.std() / drawn.standard_error.square().mean().sqrt()) < 1.1
    torch.testing.assert_close(drawn.decoder, whole.decoder)
    assert int((drawn.levels[0] != 0).sum()) <= 9


def test_all_levels_drawn_are_all_levels():
    oracle = mixture(SHORT)
    x = oracle.sample(3, 1)
    assert torch.equal(variational_bound(oracle, x, num_levels=40).levels, variational_bound(oracle, x).levels)


def test_what_makes_no_sense_is_refused():
    oracle = mixture(SHORT)
    x = oracle.sample(3, 1)
    with pytest.raises(IncompatibleParts, match="FlowSchedule has none: use the likelihood by the ODE"):
        variational_bound(mixture(FlowSchedule()), x)
    with pytest.raises(ShapeError, match="expected 3 indices"):
        variational_bound(oracle, x, indices=[0])
    for num_levels in (1, 41):
        with pytest.raises(BadOption, match="num_levels: expected 2 to 40"):
            variational_bound(oracle, x, num_levels=num_levels)
    with pytest.raises(BadOption, match="at_once"):
        variational_bound(oracle, x, at_once=0)
