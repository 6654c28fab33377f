"""EDM's coefficients against the formulas of the paper, and its promise on Gaussian data."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.edm import EDMDenoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.sigmoid import SigmoidSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule


class Zero(nn.Module):
    def forward(self, x, noise_level, cond=None):
        return torch.zeros_like(x)


def test_the_coefficients_are_those_of_table_1_of_the_paper():
    schedule, data = VarianceExplodingSchedule(), 0.5
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    sigma = schedule.sigma(t)
    c = EDMDenoiser(None, schedule, data).coefficients(t)
    torch.testing.assert_close(c.skip, data**2 / (sigma**2 + data**2), rtol=1e-12, atol=0)
    torch.testing.assert_close(c.out, sigma * data / (sigma**2 + data**2).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(c.in_, 1 / (sigma**2 + data**2).sqrt(), rtol=1e-12, atol=0)


def test_the_target_is_that_of_the_paper_and_has_unit_variance():
    schedule, data = VarianceExplodingSchedule(), 0.5
    x_0, eps = torch.randn(2, 20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = EDMDenoiser(None, schedule, data)
    for time in (0.2, 0.5, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        c, x_t = denoiser.coefficients(t), data * x_0 + schedule.sigma(t) * eps
        target = denoiser.target(data * x_0, eps, t)
        torch.testing.assert_close(target, (data * x_0 - c.skip * x_t) / c.out, rtol=1e-9, atol=1e-9)
        assert float(target.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("schedule", [VarianceExplodingSchedule(), FlowSchedule(), CosineSchedule(), SigmoidSchedule()])
def test_a_network_that_says_nothing_is_exact_for_gaussian_data(schedule):
    oracle = GaussianMixtureOracle(torch.zeros(1, 2), torch.tensor([0.7]), torch.ones(1), schedule)
    denoiser = EDMDenoiser(Zero(), schedule, float(torch.tensor(0.7)))
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for time in (0.01, 0.3, 1.0):
        t = torch.tensor(time, dtype=torch.float64)
        torch.testing.assert_close(denoiser(x, t), oracle(x, t), rtol=1e-12, atol=1e-14)
