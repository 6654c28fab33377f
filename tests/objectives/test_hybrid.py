"""The hybrid objective: the error moves the mean, the bound moves the variance."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.denoisers.v import VDenoiser
from unnoise.errors import IncompatibleParts
from unnoise.objectives.base import Draws
from unnoise.objectives.hybrid import HybridObjective
from unnoise.objectives.mse import MSEObjective
from unnoise.process.chain import Gaussian, MarkovChain, normal_kl
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule


class Halves(nn.Module):
    """A mean and a variance with a weight each."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.variance = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, x, noise_level, cond=None):
        return torch.cat([self.mean * x, self.variance.expand_as(x)], 1)


class Half(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, x, noise_level, cond=None):
        return self.mean * x


def draws(shape, levels):
    x_0, eps = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    t = (torch.tensor(levels, dtype=torch.float64) + 1) / 1000
    return Draws(x_0, 2 * eps, t, None)


LEVELS = [0, 1, 500, 999]


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 3, 4)], ids=["points, batch = dimension", "images, batch = width"])
@pytest.mark.parametrize("inner_of", [NoiseDenoiser, VDenoiser])
def test_the_mean_learns_from_the_squared_error_alone_and_the_variance_from_the_bound_alone(shape, inner_of):
    network, schedule = Halves(), LinearSchedule()
    denoiser = LearnedVarianceDenoiser(inner_of(network, schedule))
    d = draws(shape, LEVELS)

    def gradients(objective):
        losses = objective.losses(denoiser, objective.prepare(denoiser, d))
        return torch.autograd.grad(losses.sum(), (network.mean, network.variance))

    mean, variance = gradients(HybridObjective())
    alone = inner_of(Half(network.mean), schedule)
    (expected,) = torch.autograd.grad(
        MSEObjective().losses(alone, MSEObjective().prepare(alone, d)).sum(), network.mean
    )
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=0)
    assert float(variance.abs()) > 0
    assert float(gradients(HybridObjective(vlb_weight=0.0))[1]) == 0
    torch.testing.assert_close(gradients(HybridObjective(vlb_weight=0.01))[1], 10 * variance, rtol=1e-12, atol=0)


def test_the_bound_is_the_kl_of_the_two_reverse_steps():
    network, schedule = Halves(), LinearSchedule()
    inner = NoiseDenoiser(network, schedule)
    denoiser, d, chain = LearnedVarianceDenoiser(inner), draws((4, 3), [1, 77, 500, 999]), MarkovChain(schedule)
    with_bound, without = (
        o.losses(denoiser, o.prepare(denoiser, d))
        for o in (HybridObjective(vlb_weight=0.5), HybridObjective(vlb_weight=0.0))
    )
    x_t = schedule.alpha(d.t)[:, None] * d.x_0 + schedule.sigma(d.t)[:, None] * d.eps
    estimate, fraction = denoiser.with_variance(x_t, d.t)
    for i, level in enumerate((1, 77, 500, 999)):
        k = torch.tensor(level)
        here = slice(i, i + 1)
        true = chain.posterior(d.x_0[here], x_t[here], k)
        model = Gaussian(
            chain.posterior(estimate[here], x_t[here], k).mean, chain.reverse_log_variance(fraction[here], k)
        )
        # L_simple + weight (T terms, of which this level is one): the mean over levels of T KL is the bound
        expected = 0.5 * 1000 * normal_kl(true, model).mean()
        torch.testing.assert_close((with_bound - without)[i], expected, rtol=1e-9, atol=1e-12)


def test_the_variance_that_the_bound_likes_best_is_the_true_one():
    """Told x_0, the reverse step is the posterior: its variance, fraction 0, has the smallest bound."""
    schedule = LinearSchedule()

    class Knows(nn.Module):
        def __init__(self, output):
            super().__init__()
            self.output = output

        def forward(self, x, noise_level, cond=None):
            return torch.cat([d.eps, torch.full_like(x, self.output)], 1)

    d = draws((4, 3), [5, 77, 500, 999])
    bounds = []
    for output in (-1.1, -1.0, -0.9):
        denoiser = LearnedVarianceDenoiser(NoiseDenoiser(Knows(output), schedule))
        bounds.append(HybridObjective().losses(denoiser, HybridObjective().prepare(denoiser, d)))
    assert bool((bounds[1] < bounds[0]).all())
    assert bool((bounds[1] < bounds[2]).all())
    torch.testing.assert_close(bounds[1], torch.zeros_like(bounds[1]), rtol=0, atol=1e-9)


def test_it_needs_a_learned_variance_and_levels():
    d = draws((4, 4), LEVELS)
    with pytest.raises(IncompatibleParts, match="learned_variance=true"):
        HybridObjective().prepare(NoiseDenoiser(Halves(), LinearSchedule()), d)
    with pytest.raises(IncompatibleParts, match="discrete schedule"):
        HybridObjective().prepare(LearnedVarianceDenoiser(VDenoiser(Halves(), FlowSchedule())), d)
