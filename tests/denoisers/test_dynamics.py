"""Score, SDE and ODE of a denoiser: against the exact density of a mixture, and against each other."""

import pytest
import torch

from unnoise.denoisers.dynamics import ProbabilityFlow, ReverseSDE, score
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.sub_vp import SubVPSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.process.vp import VPSchedule

SCHEDULES = [VPSchedule(), SubVPSchedule(), VarianceExplodingSchedule(0.01, 20.0), FlowSchedule(), CosineSchedule()]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.registered_name)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(schedule):
    means = f64([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]])
    return GaussianMixtureOracle(means, f64([0.5, 0.7, 0.4]), f64([0.5, 0.2, 0.3]), schedule, (0, 1, 1))


def noisy(schedule, t, n=6):
    a, b = torch.randn(2, n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return schedule.alpha(f64(t)) * a + schedule.sigma(f64(t)) * b


def divergence(field, x):
    """The divergence of a field of points, each by itself, shape (B,)."""
    x = x.detach().requires_grad_()
    value = field(x)
    parts = [torch.autograd.grad(value[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return torch.stack(parts).sum(0)


@schedules
@pytest.mark.parametrize("t", [0.02, 0.4, 0.97])
def test_the_score_is_the_gradient_of_the_log_density(schedule, t):
    oracle, at = mixture(schedule), f64(t)
    x = noisy(schedule, t).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, at).sum(), x)
    torch.testing.assert_close(score(oracle, x.detach(), at), gradient, rtol=1e-9, atol=1e-9)
    ones = {"label": torch.ones(len(x), dtype=torch.int64)}
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, at, ones).sum(), x)
    torch.testing.assert_close(score(oracle, x.detach(), at, ones), gradient, rtol=1e-9, atol=1e-9)


@schedules
@pytest.mark.parametrize("stochasticity", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("t", [0.0503, 0.4003, 0.8003])
def test_every_member_of_the_family_carries_the_exact_density(schedule, stochasticity, t):
    r"""d/dt log p = -div u - u . s - (lambda g)^2 / 2 (div s + |s|^2), Fokker and Planck's equation of the reverse SDE."""
    oracle, sde, at, h = mixture(schedule), ReverseSDE(mixture(schedule), stochasticity), f64(t), 1e-6
    x = noisy(schedule, t)
    change = (oracle.log_prob(x, at + h) - oracle.log_prob(x, at - h)) / (2 * h)
    s, u = oracle.score(x, at), sde.drift(x, at)
    spread = divergence(lambda y: oracle.score(y, at), x) + (s**2).sum(1)
    flow = -divergence(lambda y: sde.drift(y, at), x) - (u * s).sum(1)
    expected = flow - sde.diffusion(at) ** 2 / 2 * spread
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-6)


@schedules
def test_the_flow_is_the_family_without_noise_and_the_papers_formula(schedule):
    oracle, at = mixture(schedule), f64(0.3)
    x = noisy(schedule, 0.3)
    velocity = ProbabilityFlow(oracle).velocity(x, at)
    assert torch.equal(ReverseSDE(oracle, 0.0).drift(x, at), velocity)
    assert float(ReverseSDE(oracle, 0.0).diffusion(at)) == 0
    h = 1e-7
    alpha, sigma = schedule.alpha, schedule.sigma
    f = (alpha(at + h).log() - alpha(at - h).log()) / (2 * h)
    g_squared = (sigma(at + h) ** 2 - sigma(at - h) ** 2) / (2 * h) - 2 * f * sigma(at) ** 2
    expected = f * x - g_squared / 2 * oracle.score(x, at)
    torch.testing.assert_close(velocity, expected, rtol=1e-5, atol=1e-5)


def test_the_reverse_of_the_vp_sde_is_anderson_s():
    oracle, at = mixture(VPSchedule()), f64(0.3)
    x, beta = noisy(VPSchedule(), 0.3), 0.1 + 19.9 * 0.3
    sde = ReverseSDE(oracle)
    torch.testing.assert_close(sde.drift(x, at), -beta * x / 2 - beta * oracle.score(x, at), rtol=1e-9, atol=1e-9)
    assert float(sde.diffusion(at)) == pytest.approx(beta**0.5, rel=1e-9)


def test_pure_noise_has_a_velocity_but_no_reverse_sde():
    oracle, at = mixture(FlowSchedule()), f64(1.0)
    x = noisy(FlowSchedule(), 1.0)
    mean = (f64([0.5, 0.2, 0.3])[:, None] * oracle.means).sum(0)
    torch.testing.assert_close(ProbabilityFlow(oracle).velocity(x, at), x - mean, rtol=1e-12, atol=1e-12)
    assert torch.equal(ReverseSDE(oracle, 0.0).drift(x, at), ProbabilityFlow(oracle).velocity(x, at))
    torch.testing.assert_close(score(oracle, x, at), -x, rtol=1e-12, atol=1e-12)
    for ask in (lambda: ReverseSDE(oracle).drift(x, at), lambda: ReverseSDE(oracle).diffusion(at)):
        with pytest.raises(IncompatibleParts, match="no signal is left"):
            ask()


def test_clean_data_has_no_score():
    with pytest.raises(IncompatibleParts, match="t = 0"):
        score(mixture(VPSchedule()), noisy(VPSchedule(), 0.0), f64(0.0))


def test_each_sample_has_its_own_time():
    oracle, times = mixture(VPSchedule()), f64([0.1, 0.8])
    x = noisy(VPSchedule(), 0.5, n=2)
    for field in (lambda *at: score(oracle, *at), ProbabilityFlow(oracle).velocity, ReverseSDE(oracle, 0.7).drift):
        alone = torch.cat([field(x[i : i + 1], times[i]) for i in range(2)])
        torch.testing.assert_close(field(x, times), alone, rtol=1e-12, atol=1e-12)


def test_a_stochasticity_below_0_is_refused():
    for bad in (-0.1, float("nan")):
        with pytest.raises(BadOption, match="stochasticity"):
            ReverseSDE(mixture(VPSchedule()), bad)
