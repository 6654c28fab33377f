"""Our guidance rules against the guiders of diffusers 0.42.1, on the same two predictions."""

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.guidance.apg import AdaptiveProjectedGuidance
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.base import Guided
from unnoise.guidance.cfg_zero_star import CFGZeroStar
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.dynamic_thresholding import DynamicThresholding
from unnoise.process.flow import FlowSchedule
from unnoise.process.forward import velocity_from_x_0, x_0_from_velocity

guiders = pytest.importorskip("diffusers.guiders", exc_type=ImportError)
COND, T = {"label": torch.tensor([1, 1])}, torch.tensor(0.4, dtype=torch.float64)
X, WANTED, UNWANTED = torch.randn(3, 2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Says(Denoiser):
    """One estimate where something is asked for, another one where nothing is."""

    schedule = FlowSchedule()

    def __init__(self, wanted=WANTED, unwanted=UNWANTED):
        super().__init__()
        self.estimates = unwanted, wanted

    def forward(self, x_t, t, cond=None):
        label = torch.zeros(len(x_t), dtype=torch.int64) if cond is None else cond["label"]
        return torch.stack([self.estimates[int(which)][i % 2] for i, which in enumerate(label)])

    def null_condition(self, batch, device=None):
        return {"label": torch.zeros(batch, dtype=torch.int64)}


def ours(rule, denoiser=None):
    return Guided(denoiser or Says(), rule)(X, T, COND)


def velocity(x_0):
    return velocity_from_x_0(x_0, X, FlowSchedule(), T)


@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_classifier_free_guidance_with_rescale(scale):
    theirs = guiders.ClassifierFreeGuidance(scale, guidance_rescale=0.7)
    theirs.set_state(0, 10, T)
    expected = theirs.forward(WANTED, UNWANTED).pred
    torch.testing.assert_close(ours(ClassifierFreeGuidance(scale, 0.7)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("parallel", "threshold"), [(0.0, 5.0), (0.5, 1e3), (1.0, 12.0)])
def test_adaptive_projected_guidance(parallel, threshold):
    # The paper adds g - 1 differences to the conditional prediction; by default diffusers adds g of them to the other one, which
    # is not the same once they are projected.
    theirs = guiders.AdaptiveProjectedGuidance(5.0, None, threshold, eta=parallel, use_original_formulation=True)
    theirs.set_state(0, 10, T)
    expected = theirs.forward(WANTED, UNWANTED).pred
    found = ours(AdaptiveProjectedGuidance(6.0, parallel, threshold))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_cfg_zero_star():
    theirs = guiders.ClassifierFreeZeroStarGuidance(6.0, zero_init_steps=1)
    theirs.set_state(3, 10, T)
    expected = theirs.forward(velocity(WANTED), velocity(UNWANTED)).pred
    found = velocity(ours(CFGZeroStar(6.0)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # theirs takes the ratio in float32


def test_the_zeros_of_cfg_zero_star():
    theirs = guiders.ClassifierFreeZeroStarGuidance(6.0, zero_init_steps=1)
    theirs.set_state(0, 10, T)
    expected = x_0_from_velocity(theirs.forward(velocity(WANTED), velocity(UNWANTED)).pred, X, FlowSchedule(), T)
    torch.testing.assert_close(ours(CFGZeroStar(6.0, zero_share=0.7)), expected, rtol=1e-12, atol=1e-12)


def test_autoguidance():
    theirs = guiders.AutoGuidance(2.5, auto_guidance_layers=[0], dropout=0.1)
    theirs.set_state(0, 10, T)
    expected = theirs.forward(WANTED, UNWANTED).pred
    found = ours(AutoGuidance(Says(UNWANTED, UNWANTED), 2.5))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995])
def test_dynamic_thresholding(percentile):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=1e6)
    expected = theirs._threshold_sample(ours(ClassifierFreeGuidance(4.0)))
    found = ours(DynamicThresholding(4.0, percentile))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
