"""Dynamic thresholding: what it does to values out of range, and to values within."""

import math

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.dynamic_thresholding import DynamicThresholding

COND, T = {"label": torch.tensor([0, 1])}, torch.tensor(0.3, dtype=torch.float64)


def images(scale=1.0):
    return scale * torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_each_sample_is_clipped_at_its_own_percentile_and_divided_by_it(odd):
    plain = Guided(odd(), ClassifierFreeGuidance(8.0))(images(), T, COND)
    found = Guided(odd(), DynamicThresholding(8.0, percentile=0.9, bound=0.5))(images(), T, COND)
    for before, after in zip(plain, found, strict=True):
        s = torch.quantile(before.abs().flatten(), 0.9)
        assert s > 0.5
        torch.testing.assert_close(after, 0.5 * before.clamp(-s, s) / s, rtol=1e-13, atol=0)
        assert float(after.abs().max()) == pytest.approx(0.5)


def test_what_lies_within_the_range_stays_bit_for_bit(odd):
    plain = Guided(odd(), ClassifierFreeGuidance(1.5))(images(), T, COND)
    bound = float(plain.abs().max())
    assert torch.equal(
        Guided(odd(), DynamicThresholding(1.5, bound=2 * bound, percentile=1.0))(images(), T, COND), plain
    )
    # A few values beyond the range are clipped to it, and the rest is not scaled.
    found = Guided(odd(), DynamicThresholding(1.5, bound=0.9 * bound, percentile=0.5))(images(), T, COND)
    torch.testing.assert_close(found, plain.clamp(-0.9 * bound, 0.9 * bound), rtol=1e-13, atol=0)


def test_it_acts_without_a_push_too_but_not_where_nothing_is_asked_for(odd):
    denoiser = odd()
    assert float(Guided(denoiser, DynamicThresholding(bound=0.1))(images(), T, COND).abs().max()) == pytest.approx(0.1)
    assert torch.equal(Guided(denoiser, DynamicThresholding(bound=0.1))(images(), T), denoiser(images(), T))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_that_nothing_can_lie_within_is_refused(bound):
    with pytest.raises(BadOption, match="bound: must be above 0"):
        DynamicThresholding(bound=bound)
