"""Adaptive projected guidance: which part of the difference is left, and how long it may be."""

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.guidance.apg import AdaptiveProjectedGuidance
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance

COND, T = {"label": torch.tensor([0, 1])}, torch.tensor(0.3, dtype=torch.float64)
X = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def estimate(denoiser, *options):
    return Guided(denoiser, AdaptiveProjectedGuidance(*options))(X, T, COND)


def test_what_is_added_is_at_right_angles_to_the_conditional_estimate(odd):
    denoiser = odd()
    wanted = denoiser(X, T, COND)
    added = (estimate(denoiser, 6.0) - wanted).flatten(1)
    size = (added.norm(dim=1) * wanted.flatten(1).norm(dim=1)).clamp(min=1e-12)
    assert float(((added * wanted.flatten(1)).sum(1) / size).abs().max()) < 1e-12
    plain = Guided(denoiser, ClassifierFreeGuidance(6.0))(X, T, COND)
    assert bool((added.norm(dim=1) < 0.99 * (plain - wanted).flatten(1).norm(dim=1)).all())
    # The rest of plain guidance points along the estimate.
    along = (plain - wanted).flatten(1) - added
    torch.testing.assert_close(along, along[:, :1] / wanted.flatten(1)[:, :1] * wanted.flatten(1), rtol=1e-9, atol=1e-9)


def test_with_the_whole_of_the_parallel_part_it_is_classifier_free_guidance(odd):
    for scale in (0.0, 0.5, 3.0):
        plain = Guided(odd(), ClassifierFreeGuidance(scale))(X, T, COND)
        torch.testing.assert_close(estimate(odd(), scale, 1.0), plain, rtol=1e-13, atol=1e-13)


def test_a_difference_is_only_shortened(odd):
    denoiser = odd()
    wanted = denoiser(X, T, COND)
    lengths = (wanted - denoiser(X, T)).flatten(1).norm(dim=1)
    threshold = float(lengths.mean())
    kept = (estimate(denoiser, 2.0, 1.0, threshold) - wanted).flatten(1).norm(dim=1)
    torch.testing.assert_close(kept, lengths.clamp(max=threshold), rtol=1e-12, atol=0)
    assert float(lengths.min()) < threshold < float(lengths.max())


def test_no_difference_and_an_estimate_of_zero_are_no_trouble(odd):
    same = Guided(odd(), AdaptiveProjectedGuidance(3.0, norm_threshold=1.0), COND)
    torch.testing.assert_close(same(X, T, COND), odd()(X, T, COND), rtol=0, atol=0)
    zero = Guided(odd(), AdaptiveProjectedGuidance(3.0))(torch.zeros_like(X), T, {"label": torch.tensor([0, 0])})
    assert bool(zero.isfinite().all())


@pytest.mark.parametrize("options", [{"norm_threshold": 0.0}, {"parallel": 1.5}, {"scale": -1.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(BadOption, match=next(iter(options))):
        AdaptiveProjectedGuidance(**options)
