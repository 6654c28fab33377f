"""Where guidance rules lead two known classes: against the table that the project began with, and against closed forms."""

import math

import pytest

from unnoise.evaluation.overshoot import ExactClassifier, land, two_classes
from unnoise.guidance.apg import AdaptiveProjectedGuidance
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.cfg_pp import CFGPlusPlus
from unnoise.guidance.cfg_zero_star import CFGZeroStar
from unnoise.guidance.classifier import ClassifierGuidance
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.dynamic_thresholding import DynamicThresholding
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler

TABLE = {
    0: (0.0, 1.118), 1: (1.0, 0.5), 2: (1.318, 0.355), 3: (1.517, 0.311), 5: (1.803, 0.271), 7.5: (2.071, 0.247),
    15: (2.641, 0.220),
}  # fmt: skip
"""From samples of an independent program, DDIM with 1,000 steps; for 0 and 1 the exact values."""

QUICK = {"sampler": DPMSolverPPSampler(), "steps": 60, "grid": "log_snr", "starts": 501}
EXACT = two_classes()


@pytest.mark.parametrize("scale", [2, 7.5])
def test_ddim_lands_where_the_table_says(scale):
    end = land(ClassifierFreeGuidance(scale), sampler=DDIMSampler(), steps=200, starts=501)
    assert end.mean == pytest.approx(TABLE[scale][0], abs=0.012)
    assert end.std == pytest.approx(TABLE[scale][1], abs=0.012)


@pytest.mark.parametrize("scale", TABLE)
def test_by_an_exact_classifier_as_without_one(scale):
    mean, std = TABLE[scale]
    rules = [ClassifierFreeGuidance(scale)]
    rules += [ClassifierGuidance(ExactClassifier(EXACT), scale, conditional) for conditional in (True, False)]
    ends = [land(rule, EXACT, **QUICK) for rule in rules]
    for end in ends:
        assert end.mean == pytest.approx(ends[0].mean, abs=1e-6)
        assert end.mean == pytest.approx(mean, abs=0.02)
        assert end.std == pytest.approx(std, abs=0.02)


def test_an_overshoot_and_a_spread_are_told_by_the_class():
    end = land(ClassifierFreeGuidance(3.0), EXACT, **QUICK)
    assert end.overshoot == end.mean - 1
    assert end.spread == 2 * end.std


RESTRAINED = {
    "an interval": ClassifierFreeGuidance(7.5, interval=(0.0, 0.4)),
    "a threshold": DynamicThresholding(7.5, bound=2.0),
    "a norm": AdaptiveProjectedGuidance(7.5, parallel=1.0, norm_threshold=0.3),
    "a projection in part": AdaptiveProjectedGuidance(7.5, parallel=0.3),
}


@pytest.mark.parametrize("name", RESTRAINED)
def test_restraints_overshoot_less_than_half_as_far_as_plain_guidance_but_still_push(name):
    plain, end = (land(rule, EXACT, **QUICK) for rule in (ClassifierFreeGuidance(7.5), RESTRAINED[name]))
    assert 0.2 < end.overshoot < 0.7 * plain.overshoot
    assert end.spread < 1


def test_on_a_line_projections_leave_the_class_itself():
    """There everything is parallel to the estimate, and every velocity a multiple of every other."""
    for rule in (AdaptiveProjectedGuidance(7.5), CFGZeroStar(7.5, zero_share=0.0)):
        end = land(rule, EXACT, **QUICK)
        assert (end.mean, end.std) == (pytest.approx(1, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_beside_other_coordinates_they_push_but_less_than_plain_guidance():
    wide = two_classes(others=15)
    quick = {**QUICK, "starts": 201}
    plain = land(ClassifierFreeGuidance(5.0), wide, **quick)
    for rule in (AdaptiveProjectedGuidance(5.0), CFGZeroStar(5.0, zero_share=0.0)):
        end = land(rule, wide, **quick)
        assert 0.1 < end.overshoot < plain.overshoot - 0.02


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.0])
def test_autoguidance_narrows_the_class_where_it_stands(scale):
    """Of one normal distribution, away from one of spread 0.7: no overshoot at all, and the ODE's spread in closed form.

    With y = x / alpha and k = sigma / alpha, d ln(y - 1) / dk is the sum of k / (s^2 + k^2) of both models, weighted by g and
    1 - g; the integral of each is ln(s^2 + k^2) / 2.
    """
    end = land(AutoGuidance(two_classes(std=0.7), scale), EXACT, **QUICK)
    assert end.overshoot == pytest.approx(0, abs=0.01)
    assert end.std == pytest.approx(0.5**scale * 0.7 ** (1 - scale), abs=0.02)


def test_cfg_plus_plus_guides_more_with_more_steps_and_in_one_step_like_plain_guidance():
    few, many = (land(CFGPlusPlus(0.4), EXACT, steps=steps, starts=301) for steps in (10, 40))
    assert few.mean < many.mean
    one, plain = (land(rule, EXACT, steps=1, starts=301) for rule in (CFGPlusPlus(0.4), ClassifierFreeGuidance(0.4)))
    assert one == plain


def test_its_starts_are_the_quantiles_of_the_noise():
    end = land(ClassifierFreeGuidance(1.0), EXACT, sampler=DPMSolverPPSampler(), steps=100, grid="log_snr", starts=1001)
    assert math.isclose(end.std, 0.5, abs_tol=2e-3)
