"""Autoguidance: away from a weaker model, with the bookkeeping of two networks."""

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample, samplers

COND, T = {"label": torch.tensor([0, 1, 1])}, torch.tensor(0.4, dtype=torch.float64)
X = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cond", [COND, None], ids=["a label", "nothing"])
def test_it_is_its_formula_with_one_call_of_each(odd, plane, cond):
    strong, weak = odd(), plane(FlowSchedule())
    expected = weak(X, T, cond) + 2.5 * (strong(X, T, cond) - weak(X, T, cond))
    strong.calls.clear()
    found, fraction = Guided(strong, AutoGuidance(weak, 2.5)).with_variance(X, T, cond)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    assert strong.calls == [3]
    assert fraction.flatten(1)[:, 0].tolist() == ([0, 1, 1] if cond else [9, 9, 9])


def test_a_weaker_model_as_good_as_the_better_one_changes_nothing(plane):
    oracle = plane(CosineSchedule())
    torch.testing.assert_close(
        Guided(oracle, AutoGuidance(oracle, 3.0))(X, T, COND), oracle(X, T, COND), rtol=1e-12, atol=1e-12
    )


def test_away_from_itself_with_the_null_condition_is_classifier_free_guidance(plane):
    oracle = plane(CosineSchedule())
    found = Guided(oracle, AutoGuidance(oracle, 3.0), oracle.null_condition(3))(X, T, COND)
    torch.testing.assert_close(found, Guided(oracle, ClassifierFreeGuidance(3.0))(X, T, COND), rtol=1e-12, atol=1e-12)


def test_away_from_a_blurred_model_it_undoes_the_blur_of_a_less_blurred_one():
    """Two models of one normal distribution whose spreads are wrong the same way: the push goes to the right one."""

    def model(std):
        one = torch.ones(1, dtype=torch.float64)
        return GaussianMixtureOracle(torch.zeros(1, 1, dtype=torch.float64), std * one, one, CosineSchedule())

    x = torch.linspace(-2, 2, 101, dtype=torch.float64)[:, None]
    spreads = [
        float(sample(samplers.build("heun"), denoiser, x, grids.uniform(40)).abs().max()) / 2
        for denoiser in (model(1.0), model(1.2), Guided(model(1.2), AutoGuidance(model(1.4), 2.0)))
    ]
    assert spreads[0] == pytest.approx(1.0, abs=0.01)
    assert spreads[1] == pytest.approx(1.2, abs=0.01)
    assert spreads[2] == pytest.approx(1.0, abs=0.06)


class Recalling(Denoiser):
    """Answers with what it was told that it had estimated."""

    def __init__(self, told=None):
        super().__init__()
        self.schedule, self.self_conditioned, self.told = FlowSchedule(), True, told

    def forward(self, x_t, t, cond=None):
        return torch.zeros_like(x_t) if self.told is None else self.told

    def recalling(self, estimate):
        return Recalling(estimate)

    def rows(self, index):
        return self if self.told is None else Recalling(self.told[index])


def test_the_weaker_model_is_told_the_estimates_before_too_and_for_the_right_samples(odd):
    guided = Guided(odd(), AutoGuidance(Recalling(), 0.0)).recalling(X)
    assert torch.equal(guided(X, T, COND), X)
    some = torch.tensor([2, 0])
    assert torch.equal(guided.rows(some)(X[some], T, {"label": COND["label"][some]}), X[some])


def test_it_needs_a_weaker_model_and_a_scale_from_0():
    with pytest.raises(BadOption, match="weak: must be given"):
        AutoGuidance(scale=2.0)
    with pytest.raises(BadOption, match="scale"):
        AutoGuidance("runs/small", -1.0)
    with pytest.raises(BadOption, match="weak"):
        AutoGuidance(3, 2.0)
