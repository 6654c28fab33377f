"""The straight path: how its shift follows the size of the data."""

import math

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from unnoise.errors import BadOption
from unnoise.process.base import schedules
from unnoise.process.flow import FlowSchedule, shift_for


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0, 9.0])
def test_what_values_have_in_common_is_as_well_known_at_another_size(shift, ratio):
    schedule, t = FlowSchedule(shift), torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    other = schedule.resized(ratio)
    n = 64  # values that are alike
    torch.testing.assert_close(
        other.sigma(t) / other.alpha(t) / math.sqrt(ratio * n), schedule.sigma(t) / schedule.alpha(t) / math.sqrt(n)
    )
    assert other.resized(1 / ratio).shift == pytest.approx(shift)


def test_it_is_the_shift_of_the_paper_of_stable_diffusion_3():
    assert FlowSchedule().resized(4).shift == 2.0  # 1024 x 1024 beside 512 x 512
    t = torch.tensor(0.5, dtype=torch.float64)
    assert float(FlowSchedule().resized(9).sigma(t)) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(BadOption, match="ratio: expected how many times as many places there are, above 0"):
        FlowSchedule().resized(ratio)


@pytest.mark.parametrize("tokens", [256, 1000, 4096, 8000])
def test_the_shift_of_flux_is_that_of_diffusers(tokens):
    assert math.log(shift_for(tokens)) == pytest.approx(calculate_shift(tokens))


def test_a_shift_is_settled_by_places_as_in_stable_diffusion_3_or_by_tokens_as_in_flux():
    assert FlowSchedule("size").settled(1024).shift == 1.0  # latents of 256 x 256 pixels
    assert FlowSchedule("size").settled(4096).shift == 2.0
    assert FlowSchedule("size").settled(64).shift == 0.25
    assert FlowSchedule("tokens").settled(128 * 128, 4096).shift == pytest.approx(math.exp(1.15))
    assert FlowSchedule(3.0).settled(64, 16) == FlowSchedule(3.0)


def test_what_is_left_to_the_data_is_no_number_and_says_so():
    open_one = schedules.build({"name": "flow", "shift": "size"})
    assert schedules.describe(open_one) == {"name": "flow", "shift": "size"}
    with pytest.raises(BadOption) as caught:
        open_one.sigma(torch.tensor(0.5))
    assert str(caught.value) == "shift: size is settled by the data of a recipe; give a number where there is none"
    with pytest.raises(
        BadOption, match="shift: tokens are patches, and this network cuts the data into none: give size, or a number"
    ):
        FlowSchedule("tokens").settled(64)
    for wrong in ("sizes", 0, 1e4):
        with pytest.raises(BadOption, match="shift"):
            schedules.build({"name": "flow", "shift": wrong})
