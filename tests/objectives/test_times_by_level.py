"""The hybrid objective is one of a chain with levels."""

import pytest
import torch

from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.errors import IncompatibleParts
from unnoise.objectives.base import Draws
from unnoise.objectives.hybrid import HybridObjective
from unnoise.process.linear import LinearSchedule


def test_the_hybrid_objective_refuses_times_between_the_levels():
    denoiser = LearnedVarianceDenoiser(NoiseDenoiser(None, LinearSchedule()))
    x = torch.zeros(2, 3)
    draws = Draws(x, x, torch.tensor([0.25, 0.5], dtype=torch.float64), None)
    HybridObjective().prepare(denoiser, draws)
    with pytest.raises(IncompatibleParts, match=r"objective\.times=uniform"):
        HybridObjective().prepare(denoiser, draws._replace(t=torch.tensor([0.25, 0.50001], dtype=torch.float64)))
