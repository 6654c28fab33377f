"""The Markov chain against densities worked out by other means."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, ShapeError
from unnoise.process.chain import Gaussian, MarkovChain, discretized_nll, gaussian_nll, normal_kl
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.sigmoid import SigmoidSchedule

SHORT = LinearSchedule(40, 0.005, 0.35)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def density(x, mean, variance):
    return np.exp(-0.5 * (x - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


@pytest.mark.parametrize("schedule", [SHORT, CosineSchedule(40)], ids=["linear", "cosine"])
@pytest.mark.parametrize("level", [1, 7, 20, 38])
def test_the_posterior_is_bayes_rule_by_quadrature(schedule, level):
    chain = MarkovChain(schedule)
    x_0, x_t = 0.7, -0.4
    grid = np.linspace(-12, 12, 200_001)
    before, beta = float(schedule.alpha_bars[level - 1]), float(schedule.betas[level])
    joint = density(grid, before**0.5 * x_0, 1 - before) * density(x_t, (1 - beta) ** 0.5 * grid, beta)
    joint /= joint.sum()
    mean = (joint * grid).sum()
    found = chain.posterior(f64([[x_0]]), f64([[x_t]]), torch.tensor(level))
    assert float(found.mean) == pytest.approx(mean, abs=1e-9)
    assert float(found.log_variance.exp()) == pytest.approx((joint * (grid - mean) ** 2).sum(), rel=1e-8)
    assert float(chain.posterior_variances[level]) == pytest.approx(float(found.log_variance.exp()), rel=1e-12)


def test_the_first_posterior_is_the_clean_data_itself():
    found = MarkovChain(SHORT).posterior(f64([[0.7]]), f64([[-0.4]]), torch.tensor(0))
    assert float(found.mean) == pytest.approx(0.7, abs=1e-14)
    assert float(MarkovChain(SHORT).posterior_variances[0]) == 0
    assert float(found.log_variance) == pytest.approx(
        math.log(float(MarkovChain(SHORT).posterior_variances[1])), rel=1e-12
    )


def test_each_sample_has_its_own_level_when_batch_and_dimension_agree():
    chain = MarkovChain(SHORT)
    x_0, x_t = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0, 17, 39])
    together = chain.posterior(x_0, x_t, levels)
    fraction = torch.full_like(x_0, 0.25)
    for i, level in enumerate(levels):
        alone = chain.posterior(x_0[i : i + 1], x_t[i : i + 1], level)
        torch.testing.assert_close(together.mean[i : i + 1], alone.mean, rtol=0, atol=0)
        assert float(together.log_variance[i]) == float(alone.log_variance)
        learned = chain.reverse_log_variance(fraction, levels)[i]
        expected = 0.25 * math.log(float(chain.betas[level])) + 0.75 * float(chain.posterior_log_variances[level])
        assert learned.tolist() == pytest.approx([expected] * 3, rel=1e-12)
    with pytest.raises(ShapeError, match="level"):
        chain.posterior(x_0, x_t, torch.tensor([1, 2]))


def test_kl_and_nll_are_their_integrals():
    p, q = Gaussian(f64([[0.3]]), f64([[-0.5]])), Gaussian(f64([[-0.2]]), f64([[0.4]]))
    x = np.linspace(-20, 20, 400_001)
    dp, dq = density(x, 0.3, math.exp(-0.5)), density(x, -0.2, math.exp(0.4))
    step = x[1] - x[0]
    kl = (dp * (np.log(dp + 1e-300) - np.log(dq + 1e-300))).sum() * step
    assert float(normal_kl(p, q)) == pytest.approx(kl, rel=1e-9)
    assert float(normal_kl(p, p)) == 0
    assert float(gaussian_nll(f64([[1.1]]), q)) == pytest.approx(
        -math.log(density(1.1, -0.2, math.exp(0.4))), rel=1e-12
    )


@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.0037, 0.9, 5.0])
@pytest.mark.parametrize("log_variance", [-12.0, -3.0, 1.0])
def test_the_discretised_likelihood_of_all_bytes_sums_to_one(mean, log_variance):
    x = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    p = Gaussian(torch.full_like(x, mean), torch.full_like(x, log_variance))
    nll = discretized_nll(x, p, 2 / 255)
    assert bool(nll.isfinite().all())
    assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_the_discretised_likelihood_is_the_integral_over_a_bin_and_keeps_its_digits_in_the_tails():
    from scipy.stats import norm

    width, std = 2 / 255, 0.05
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    nll = discretized_nll(x, Gaussian(torch.full_like(x, 0.2), torch.full_like(x, 2 * math.log(std))), width)
    near = slice(130, 176)
    edges = x.numpy()
    exact = norm.cdf(edges + width / 2, 0.2, std) - norm.cdf(edges - width / 2, 0.2, std)
    np.testing.assert_allclose(nll[near].numpy(), -np.log(exact[near]), rtol=1e-9)
    # 24 standard deviations out: the density times the width, corrected for its slope over the bin, is all there is
    far = float(nll[1])
    at = float(x[1])
    slope = (0.2 - at) / std**2 * width / 2
    log_p = norm.logpdf(at, 0.2, std) + math.log(width) + math.log(math.sinh(slope) / slope)
    assert far == pytest.approx(-log_p, rel=1e-4)


def exact_denoiser(mean, std, schedule):
    return GaussianMixtureOracle(f64([[mean]]), f64([std]), f64([1.0]), schedule)


CHAINS = {"linear": SHORT, "zero terminal": SHORT.zero_terminal_snr(), "sigmoid": SigmoidSchedule(40)}


@pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS)
def test_the_terms_of_the_bound_are_integrals_over_densities(schedule):
    chain, oracle = MarkovChain(schedule), exact_denoiser(0.4, 0.6, schedule)
    x_0 = f64([[0.9]])
    eps = torch.randn(40, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    terms = chain.vlb_terms(x_0, eps, lambda x, t: (oracle(x, t), None))
    assert terms.shape == (41, 1)
    grid = np.linspace(-12, 12, 400_001)
    step = grid[1] - grid[0]
    for k in (1, 5, 39):
        bar, before, beta = float(schedule.alpha_bars[k]), float(schedule.alpha_bars[k - 1]), float(schedule.betas[k])
        x_t = bar**0.5 * 0.9 + (1 - bar) ** 0.5 * float(eps[k])
        estimate = 0.4 + bar**0.5 * 0.36 / (bar * 0.36 + 1 - bar) * (x_t - bar**0.5 * 0.4)
        step_up = density(x_t, (1 - beta) ** 0.5 * grid, beta)
        q, p = (density(grid, before**0.5 * clean, 1 - before) * step_up for clean in (0.9, estimate))
        q, p = q / q.sum() / step, p / p.sum() / step
        kl = (q * (np.log(q + 1e-300) - np.log(p + 1e-300))).sum() * step
        assert float(terms[k, 0]) == pytest.approx(kl, rel=1e-6, abs=1e-9)
    last = float(schedule.alpha_bars[-1])
    q, p = density(grid, last**0.5 * 0.9, 1 - last), density(grid, 0, 1)
    assert float(terms[-1, 0]) == pytest.approx(
        (q * (np.log(q + 1e-300) - np.log(p + 1e-300))).sum() * step, rel=1e-6, abs=1e-12
    )


def test_the_prior_term_of_a_chain_that_keeps_much_signal_is_its_integral():
    schedule = LinearSchedule(5, 0.05, 0.1)
    bar = float(schedule.alpha_bars[-1])
    assert bar > 0.6
    grid = np.linspace(-12, 12, 400_001)
    q, p = density(grid, bar**0.5 * 0.9, 1 - bar), density(grid, 0, 1)
    kl = (q * (np.log(q + 1e-300) - np.log(p + 1e-300))).sum() * (grid[1] - grid[0])
    found = MarkovChain(schedule).prior_term(f64([[0.9, 0.9], [0.9, 0.0]]))
    assert float(found[0]) == pytest.approx(2 * kl, rel=1e-8)
    assert float(found[0] - found[1]) == pytest.approx(0.5 * bar * 0.81, rel=1e-12)


def test_a_chain_without_terminal_signal_has_no_prior_term():
    terms = MarkovChain(SHORT.zero_terminal_snr()).prior_term(f64([[0.9, -2.0]]))
    assert terms.tolist() == [0.0]


@pytest.mark.parametrize(("variance", "largest"), [(None, 0.75), (1.0, 0.01)], ids=["posterior", "beta"])
def test_the_bound_lies_above_the_exact_nll_and_close_to_it(variance, largest):
    schedule = LinearSchedule(400, 2.5e-4, 0.05)
    means, stds, weights = f64([[-0.8], [1.0]]), f64([0.4, 0.3]), f64([0.3, 0.7])
    oracle = GaussianMixtureOracle(means, stds, weights, schedule)
    # The expectation over x_0 by a sum over a fine grid, that over the noise of each level by Gauss and Hermite.
    grid = np.linspace(-3.5, 3.5, 141)
    nodes, shares = np.polynomial.hermite_e.hermegauss(24)
    x_0 = torch.from_numpy(np.repeat(grid, len(nodes)))[:, None]
    eps = torch.from_numpy(np.tile(nodes, len(grid)))[None, :, None].expand(400, -1, 1)

    def denoise(x, t):
        return oracle(x, t), None if variance is None else torch.full_like(x, variance)

    terms = MarkovChain(schedule).vlb_terms(x_0, eps, denoise).sum(0).numpy().reshape(len(grid), -1)
    log_prob = oracle.log_prob(torch.from_numpy(grid)[:, None], f64(0.0)).numpy()
    density_0 = np.exp(log_prob) * (grid[1] - grid[0])
    assert density_0.sum() == pytest.approx(1, abs=1e-6)
    # Measured 0.0074 nats with beta. The posterior's variance costs ln-ratios of about (k + 1) / k at the lowest levels k,
    # which do not go away with more levels: 0.692.
    gap = (density_0 * (terms @ shares / shares.sum() + log_prob)).sum()
    assert 0 < gap < largest


def test_a_worse_denoiser_has_a_larger_bound():
    chain, oracle = MarkovChain(SHORT), exact_denoiser(0.4, 0.6, SHORT)
    x_0 = oracle.sample(500, seed=3)
    eps = torch.randn(40, 500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = chain.vlb_terms(x_0, eps, lambda x, t: (oracle(x, t), None)).sum(0).mean()
    worse = chain.vlb_terms(x_0, eps, lambda x, t: (oracle(x, t) + 0.1, None)).sum(0).mean()
    assert float(worse) > float(exact) + 0.05


def test_bits_of_images_are_summed_over_every_component():
    chain = MarkovChain(SHORT)
    x_0 = (torch.randint(0, 256, (3, 1, 2, 2), generator=torch.Generator().manual_seed(0)).double() / 127.5) - 1
    eps = torch.zeros(40, 3, 1, 2, 2, dtype=torch.float64)
    terms = chain.vlb_terms(x_0, eps, lambda x, t: (x_0, None), bin_width=2 / 255)
    assert terms.shape == (41, 3)
    # told the truth, every divergence is 0 and only the decoder and the prior cost anything
    torch.testing.assert_close(terms[1:-1], torch.zeros_like(terms[1:-1]), rtol=0, atol=1e-12)
    decoder = Gaussian(x_0, chain.posterior_log_variances[0].expand_as(x_0))
    torch.testing.assert_close(terms[0], discretized_nll(x_0, decoder, 2 / 255).sum((1, 2, 3)), rtol=1e-12, atol=1e-12)


def test_a_continuous_schedule_has_no_chain():
    with pytest.raises(BadOption, match="discrete schedule"):
        MarkovChain(FlowSchedule())
