"""What grids refuse, and where their curves begin."""

import math

import pytest
import torch

from unnoise.errors import BadOption
from unnoise.process.base import log_snr_at
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids


@pytest.mark.parametrize("start", [0.0, -0.5, 1.5, math.nan])
def test_a_start_outside_of_the_interval_is_refused(start):
    for make in (lambda: grids.uniform(3, start), lambda: grids.log_snr(3, LinearSchedule(), start)):
        with pytest.raises(BadOption, match="start"):
            make()


def test_an_option_that_a_grid_does_not_have_is_refused():
    with pytest.raises(BadOption, match="trailing has no option start"):
        grids.make_grid("trailing", 3, LinearSchedule(), start=0.5)
    with pytest.raises(BadOption, match="rho"):
        grids.karras(3, LinearSchedule(), rho=0)


def test_the_curve_begins_at_the_start_unless_nothing_can_be_seen_there():
    linear = LinearSchedule()
    found = torch.tensor([log_snr_at(linear, float(t)) for t in grids.log_snr(8, linear)[:-1]])
    torch.testing.assert_close(found.diff(), found.diff()[0].expand_as(found.diff()), rtol=1e-5, atol=1e-5)
    sigma = torch.tensor([math.exp(-log_snr_at(linear, float(t)) / 2) for t in grids.karras(8, linear)[:-1]])
    roots = sigma ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[0].expand_as(roots.diff()), rtol=1e-5, atol=1e-6)
    for schedule in (CosineSchedule(), FlowSchedule()):
        grid = grids.log_snr(8, schedule)
        second = log_snr_at(schedule, float(grid[1]))
        last = log_snr_at(schedule, float(grid[-2]))
        assert grid[0] == 1
        assert second == pytest.approx(grids.FAINTEST + (last - grids.FAINTEST) / 7, abs=1e-6)
