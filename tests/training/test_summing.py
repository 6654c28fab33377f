"""Gradients of several processes are summed while they are still being made."""

import pytest
import torch
from torch import nn

from unnoise.training.flat import Flat
from unnoise.training.parallel import ALONE
from unnoise.training.summing import GradientSum, _parts

SCRIPT = """
import sys
import torch
from torch import nn
from unnoise.training.flat import Flat
from unnoise.training.parallel import connected, leave
from unnoise.training.summing import GradientSum

def layers():
    torch.manual_seed(0)
    return [nn.Linear(5, 5).double() for _ in range(4)]

def loss(network, rank, turn):
    torch.manual_seed(10 * rank + turn)
    h = torch.randn(3, 5, dtype=torch.float64)
    for number, layer in enumerate(network):
        if (rank, number) != (1, 2):  # one process does not use one of them
            h = layer(h).tanh()
    return h.square().sum()

with connected(torch.device("cpu")) as processes:
    network = nn.ModuleList(layers())
    parameters = list(network.parameters())
    gradients = Flat({name: p.detach() for name, p in network.named_parameters()}, torch.float64)
    total = GradientSum(gradients, parameters, processes, part=40)
    early = []
    parameters[0].register_hook(lambda slope: early.append(len(total._sent)))
    found = []
    for step in range(2):
        gradients.vector.zero_()
        for turn in range(2):
            if turn == 1:
                total.arm()
            loss(network, processes.rank, 10 * step + turn).backward()
            for view, p in zip(gradients.views, parameters):
                if p.grad is not None:
                    view.add_(p.grad)
                    p.grad = None
        if step == 0:
            total.flush()
            processes.add(torch.zeros(1))  # something else that all say
        total.finish()
        found.append(gradients.vector.clone())
    plain = nn.ModuleList(layers())
    expected = []
    for step in range(2):
        plain.zero_grad()
        for rank in range(processes.count):
            for turn in range(2):
                loss(plain, rank, 10 * step + turn).backward()
        twin = gradients.another()
        twin.fill([p.grad for p in plain.parameters()])
        expected.append(twin.vector)
    torch.save({"found": found, "expected": expected, "early": early}, f"{sys.argv[1]}/{processes.rank}.pt")
leave()
"""


def test_parts_that_travel_early_make_the_sum_in_every_process(interpreters, tmp_path):
    interpreters.together(2, SCRIPT, tmp_path)
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for each in told:
        for found, expected in zip(each["found"], each["expected"], strict=True):
            assert found.abs().max() > 0.1
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(told[0]["found"][1], told[1]["found"][1])
    # When the gradient of the first layer came, parts of the last ones were under way; a layer that a process does not use holds
    # back what comes after it, and nothing is sent before the last backward pass.
    assert told[0]["early"] == [0, 3, 0, 3]
    assert told[1]["early"] == [0, 1, 0, 1]


@pytest.mark.parametrize("least", [1, 40, 10**9])
def test_parts_are_the_whole_vector_from_its_end(least):
    shapes = {"a": (3, 5), "b": (40,), "c": (1,), "d": (2, 2)}
    flat = Flat({name: torch.zeros(shape) for name, shape in shapes.items()})
    flat.vector.copy_(torch.arange(len(flat.vector)))
    parts, part_of = _parts(flat, least)
    assert torch.equal(torch.cat(parts[::-1]), flat.vector)
    assert all(len(part) >= least for part in parts[:-1])
    for view, number in zip(flat.views, part_of, strict=True):
        assert torch.isin(view.flatten(), parts[number]).all()


def test_alone_nothing_is_moved():
    network = nn.Linear(2, 2)
    flat = Flat({name: p.detach() for name, p in network.named_parameters()})
    total = GradientSum(flat, list(network.parameters()), ALONE)
    total.arm()
    network(torch.ones(1, 2)).sum().backward()
    total.finish()
    assert network.weight.grad is not None
    assert not flat.vector.any()
