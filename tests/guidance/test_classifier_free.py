"""Classifier-free guidance, by its formula, and by what it does to two normal distributions."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.options import build
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.adaptive import AdaptiveSampler
from unnoise.samplers.base import sample
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class Odd(Denoiser):
    """Its answer depends on the sample, its time and its label; the variance fraction is the label."""

    def __init__(self):
        super().__init__()
        self.schedule, self.calls = FlowSchedule(), []

    def with_variance(self, x_t, t, cond=None):
        self.calls.append(len(x_t))
        over = [-1, *[1] * (x_t.ndim - 1)]
        label = (torch.full((len(x_t),), 9) if cond is None else cond["label"]).to(x_t).reshape(over)
        t = t.expand(len(x_t)) if t.ndim == 0 else t
        return torch.sin(3 * x_t + label) * (1 - t.to(x_t).reshape(over) / 2), label.expand_as(x_t)

    def forward(self, x_t, t, cond=None):
        return self.with_variance(x_t, t, cond)[0]

    def null_condition(self, batch, device=None):
        return {"label": torch.full((batch,), 9)}


COND = {"label": torch.tensor([0, 1])}
NULL = {"label": torch.tensor([9, 9])}


def x_of(shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
@pytest.mark.parametrize("t", [0.3, [0.1, 0.9]])
@pytest.mark.parametrize("shape", [(2, 2), (2, 3, 2, 2)], ids=["points, batch = dimension", "images, batch = width"])
def test_it_is_its_formula_in_one_call_of_twice_the_batch(scale, t, shape):
    denoiser, x, t = Odd(), x_of(shape), f64(t)
    wanted, unwanted = denoiser(x, t, COND), denoiser(x, t, NULL)
    denoiser.calls.clear()
    guided, fraction = Guided(denoiser, ClassifierFreeGuidance(scale)).with_variance(x, t, COND)
    torch.testing.assert_close(guided, unwanted + scale * (wanted - unwanted), rtol=1e-14, atol=1e-14)
    assert denoiser.calls == [4]
    # the variance is that of the conditional prediction
    assert fraction.flatten(1)[:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("cond", [COND, NULL], ids=["a label", "the null label"])
def test_scale_0_is_the_unconditional_denoiser_bit_for_bit(cond):
    denoiser, x, t = Odd(), x_of((2, 2)), f64(0.4)
    expected = denoiser(x, t)
    denoiser.calls.clear()
    assert torch.equal(Guided(denoiser, ClassifierFreeGuidance(0.0))(x, t, cond), expected)
    assert denoiser.calls == [2]


def test_a_sample_is_guided_alike_in_any_batch():
    denoiser, x = Guided(Odd(), ClassifierFreeGuidance(3.0, rescale=0.5)), x_of((2, 4))
    together = denoiser(x, f64(0.4), COND)
    for i in range(2):
        alone = denoiser(x[i : i + 1], f64(0.4), {"label": COND["label"][i : i + 1]})
        torch.testing.assert_close(alone[0], together[i], rtol=1e-13, atol=1e-13)


def test_a_negative_condition_takes_the_place_of_the_null():
    denoiser, x, t, negative = Odd(), x_of((2, 2)), f64(0.4), {"label": torch.tensor([5, 6])}
    guided = Guided(denoiser, ClassifierFreeGuidance(3.0), negative)
    away = denoiser(x, t, negative)
    torch.testing.assert_close(guided(x, t, COND), away + 3 * (denoiser(x, t, COND) - away), rtol=1e-14, atol=1e-14)
    same = Guided(denoiser, ClassifierFreeGuidance(3.0), COND)
    torch.testing.assert_close(same(x, t, COND), denoiser(x, t, COND), rtol=1e-14, atol=1e-14)


def test_rescaling_brings_the_spread_of_each_sample_back_to_the_conditional_ones():
    denoiser, x, t = Odd(), x_of((2, 3, 4, 4)), f64(0.4)
    wanted = denoiser(x, t, COND).flatten(1).std(1)
    plain = Guided(denoiser, ClassifierFreeGuidance(6.0))(x, t, COND)
    full = Guided(denoiser, ClassifierFreeGuidance(6.0, rescale=1.0))(x, t, COND)
    half = Guided(denoiser, ClassifierFreeGuidance(6.0, rescale=0.5))(x, t, COND)
    torch.testing.assert_close(full.flatten(1).std(1), wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(half, (plain + full) / 2, rtol=1e-12, atol=1e-12)
    assert not bool(torch.isclose(plain.flatten(1).std(1), wanted, rtol=0.1).any())


def test_one_number_has_no_spread_to_rescale():
    denoiser, x = Odd(), x_of((2, 1))
    plain, rescaled = (
        Guided(denoiser, ClassifierFreeGuidance(6.0, rescale))(x, f64(0.4), COND) for rescale in (0.0, 0.7)
    )
    assert torch.equal(rescaled, plain)


def test_outside_its_interval_it_is_the_bare_denoiser_in_one_call():
    denoiser, x = Odd(), x_of((2, 2))
    guided = Guided(denoiser, ClassifierFreeGuidance(4.0, interval=(0.2, 0.7)))
    always = Guided(denoiser, ClassifierFreeGuidance(4.0))
    for t, acts in ((0.1, False), (0.2, True), (0.45, True), (0.7, True), (0.71, False), (1.0, False)):
        denoiser.calls.clear()
        found = guided(x, f64(t), COND)
        assert denoiser.calls == [4 if acts else 2]
        assert torch.equal(found, (always if acts else denoiser)(x, f64(t), COND))


@pytest.mark.parametrize(
    "values", [{"scale": -1}, {"rescale": 1.5}, {"interval": (0.7, 0.2)}, {"interval": (0, 2)}, {"scalee": 1}]
)
def test_bad_options_are_refused(values):
    with pytest.raises(BadOption, match=next(iter(values))):
        build(ClassifierFreeGuidance, values)


TABLE = {
    0: (0.0, 1.118),
    1: (1.0, 0.5),
    2: (1.318, 0.355),
    3: (1.517, 0.311),
    5: (1.803, 0.271),
    7.5: (2.071, 0.247),
    15: (2.641, 0.220),
}
"""The source's table, but for 0 and 1, whose exact values are known: it has -0.01, 1.109 and 0.995, 0.494 from samples."""


@pytest.mark.parametrize("scale", TABLE)
def test_two_classes_move_as_in_the_table_of_the_source(scale):
    """N(1, 0.5^2) beside N(-1, 0.5^2): guided, the mean leaves the class, and the spread shrinks."""
    oracle = GaussianMixtureOracle(f64([[-1.0], [1.0]]), f64([0.5, 0.5]), f64([1.0, 1.0]), LinearSchedule(), (0, 1))
    # On the line the flow keeps the order of its starts, so that quantiles of the start stand for draws.
    n = 1001
    x = torch.from_numpy(norm.ppf((np.arange(n) + 0.5) / n))[:, None]
    cond = {"label": torch.ones(n, dtype=torch.int64)}
    guided = Guided(oracle, ClassifierFreeGuidance(scale))
    end = sample(DPMSolverPPSampler(), guided, x, grids.log_snr(100, LinearSchedule()), cond=cond)
    mean, std = TABLE[scale]
    assert float(end.mean()) == pytest.approx(mean, abs=0.02)
    assert float(end.std()) == pytest.approx(std, abs=0.02)


def test_an_interval_is_kept_sample_by_sample():
    oracle = GaussianMixtureOracle(
        torch.tensor([[1.0, 0.3], [-0.8, 0.6]]),
        torch.tensor([0.5, 0.3]),
        torch.tensor([0.6, 0.4]),
        LinearSchedule(),
        [0, 1],
    )
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cond, t = {"label": torch.tensor([0, 1, 1])}, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for scale in (0.0, 3.0):
        guided = Guided(oracle, ClassifierFreeGuidance(scale, interval=(0.2, 0.7)))
        for i in range(3):
            alone = guided(x[i : i + 1], t[i], {"label": cond["label"][i : i + 1]})
            torch.testing.assert_close(guided(x, t, cond)[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_some_rows_keep_their_negative_condition():
    oracle = GaussianMixtureOracle(
        torch.tensor([[1.0, 0.3], [-0.8, 0.6]]),
        torch.tensor([0.5, 0.3]),
        torch.tensor([0.6, 0.4]),
        LinearSchedule(),
        [0, 1],
    )
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, label = torch.tensor(0.4, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    guided = Guided(oracle, ClassifierFreeGuidance(2.0), {"label": 1 - label})
    some = torch.tensor([3, 1])
    torch.testing.assert_close(
        guided.rows(some)(x[some], t, {"label": label[some]}), guided(x, t, {"label": label})[some]
    )
    grid, sampler = torch.tensor([1.0, 0.0], dtype=torch.float64), AdaptiveSampler()
    ends = sample(sampler, guided, x, grid, cond={"label": label})
    alone = sample(sampler, guided.rows(some), x[some], grid, cond={"label": label[some]})
    torch.testing.assert_close(ends[some], alone, rtol=1e-9, atol=1e-9)
