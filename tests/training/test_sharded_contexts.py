"""Networks that read words have, spread over two processes and forgetful in their blocks, the gradients that they have alone."""

import json

import pytest
import torch
from torch import distributed, multiprocessing

from unnoise.nn.base import networks
from unnoise.training.execution import checkpoint_blocks
from unnoise.training.parallel import Processes
from unnoise.training.sharded import shard

SMALL = {
    "latent_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (0, 1), "heads": 2},
    "dit": {"width": 16, "depth": 3, "heads": 2, "pooled": 5, "long_skips": True},
    "mmdit": {"width": 16, "depth": 2, "heads": 2, "pooled": 5, "qk_norm": True, "attend_twice": 1},
    "flux": {"width": 16, "heads": 2, "double_blocks": 1, "single_blocks": 1, "guidance": True},
}


def make(name):
    torch.manual_seed(0)
    network = networks[name]((2, 4, 6), None, 3, networks.options({"name": name, "context": 6, **SMALL[name]})[1])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def batch():
    generator = torch.Generator().manual_seed(1)
    x, words = torch.randn(4, 2, 4, 6, generator=generator), torch.randn(4, 5, 6, generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [2], [4], [1]])
    return x, torch.linspace(0, 999, 4), {"label": torch.arange(4) % 3, "context": words, "context_mask": mask}


def loss(network, rows, dtype=torch.float32):
    x, levels, cond = batch()
    return (
        network(x[rows].to(dtype), levels[rows], {name: value[rows] for name, value in cond.items()})
        .float()
        .square()
        .sum()
    )


def work(rank, place):
    """What one of two processes does: by network, how far its gradients are off, and whether they are numbers in bfloat16."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    found = {}
    for name in SMALL:
        alone, own = make(name), slice(2 * rank, 2 * rank + 2)
        loss(alone, slice(0, 4)).backward()
        worst = []
        for dtype in (torch.float32, torch.bfloat16):
            network = make(name)
            checkpoint_blocks(network)
            shard(network, dtype, Processes(rank, 2), torch.device("cpu"))
            loss(network, own, dtype).backward()
            misses = []
            for parameter, reference in zip(network.parameters(), alone.parameters(), strict=True):
                whole = 2 * parameter.grad.full_tensor()  # it is the mean over processes
                misses.append(((whole - reference.grad).norm() / reference.grad.norm().clamp(min=1e-3)).item())
            worst.append(max(misses))
        found[name] = worst
    if rank == 0:
        (place / "found.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    place = tmp_path_factory.mktemp("sharded")
    multiprocessing.spawn(work, (place,), nprocs=2)
    return json.loads((place / "found.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_two_processes_are_those_of_one(found, name):
    precise, coarse = found[name]
    assert precise < 1e-5
    assert coarse < 0.3
