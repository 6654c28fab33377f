"""Schedules and an exact problem that the contracts of several rooms are tried on."""

import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.base import schedules
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule

NEEDED = {"tabulated": {"values": (0.95, 0.7, 0.4, 0.15, 0.03)}}
"""Options of the schedules that have no default for all of theirs."""

SCHEDULES = {name: schedules.build({"name": name, **NEEDED.get(name, {})}) for name in schedules} | {
    "linear of 10": LinearSchedule(10, 0.01, 0.6),
    "linear without terminal signal": LinearSchedule().zero_terminal_snr(),
    "flow shifted up": FlowSchedule(shift=3.0),
    "flow shifted down": FlowSchedule(shift=0.3),
}


@pytest.fixture(params=list(SCHEDULES.values()), ids=list(SCHEDULES))
def schedule(request):
    return request.param


@pytest.fixture(scope="session")
def every_schedule():
    """All of them by name, for contracts that are cheap: a test for each would cost more than the check."""
    return SCHEDULES


@pytest.fixture(
    params=[s for s in SCHEDULES.values() if s.num_steps], ids=[n for n, s in SCHEDULES.items() if s.num_steps]
)
def discrete_schedule(request):
    return request.param


@pytest.fixture(scope="session")
def mixture():
    """Makes a mixture of three normals in the plane, with two labels."""

    def make(schedule, labels=(0, 1, 1)):
        means = torch.tensor([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]], dtype=torch.float64)
        stds = torch.tensor([0.5, 0.7, 0.4], dtype=torch.float64)
        weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
        return GaussianMixtureOracle(means, stds, weights, schedule, labels)

    return make
