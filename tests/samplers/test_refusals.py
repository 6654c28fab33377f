"""What stops a run, before its first step or at the step where it went wrong."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.errors import BadOption, IncompatibleParts, SamplingDiverged, UnnoiseError
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.ddim import DDIMSampler
from unnoise.samplers.ddpm import DDPMSampler
from unnoise.samplers.heun import HeunSampler


class Breaking(Denoiser):
    """Answers NaN, for one sample, from a call on."""

    def __init__(self, first, value=torch.nan):
        super().__init__()
        self.schedule, self.first, self.value, self.calls = LinearSchedule(), first, value, 0

    def forward(self, x_t, t, cond=None):
        self.calls += 1
        answer = 0.3 * x_t
        if self.calls >= self.first:
            answer[1] = self.value
        return answer


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["euler", "arc", "heun", "unipc"])
def test_a_network_that_answers_nan_stops_the_run_with_step_time_and_sampler(name, value):
    denoiser = Breaking(4, value)
    with pytest.raises(
        SamplingDiverged, match=rf"{name}: 1 of 3 samples .* after step \d of 10 \(from t = 0\.\d+ to 0\.\d+\)"
    ) as told:
        sample(samplers.build(name), denoiser, torch.ones(3, 2), grids.uniform(10))
    assert "step 4 of 10 (from t = 0.7 to 0.6)" in str(told.value) or name == "heun"
    assert isinstance(told.value, UnnoiseError)
    assert denoiser.calls <= 5


def test_a_variance_that_was_not_learned_is_missed_before_the_first_step():
    denoiser = Breaking(99)
    with pytest.raises(IncompatibleParts, match="use variance posterior or beta"):
        sample(
            DDPMSampler("learned"), denoiser, torch.ones(2, 2), grids.uniform(4), noise=lambda like, t, s, draw=0: like
        )
    assert denoiser.calls == 0


def test_noise_prediction_without_terminal_signal_is_refused_when_it_is_built():
    for schedule in (FlowSchedule(), LinearSchedule().zero_terminal_snr()):
        with pytest.raises(IncompatibleParts, match="predict v, velocity, x0 or edm instead"):
            NoiseDenoiser(nn.Identity(), schedule)


@pytest.mark.parametrize("sampler", [ArcSampler(), HeunSampler(), DDIMSampler(0.5)], ids=str)
def test_only_those_that_invert_take_a_rising_grid(sampler):
    rising = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    with pytest.raises((BadOption, IncompatibleParts)):
        sample(sampler, Breaking(99), torch.ones(2, 2), rising, noise=lambda like, t, s, draw=0: like)
