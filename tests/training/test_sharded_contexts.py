"""Networks that read words have, spread over two processes and forgetful in their blocks, the gradients that they have alone."""

import json
import multiprocessing
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from torch import distributed
from torch.multiprocessing import start_processes

from unnoise.conditioning.text.base import text_encoders
from unnoise.conditioning.text.conditioning import TextConditioning
from unnoise.conditioning.text.tokenizer import learn_tokenizer
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.nn.base import networks
from unnoise.objectives.base import Draws
from unnoise.objectives.mse import MSEObjective
from unnoise.process.linear import LinearSchedule
from unnoise.training.execution import begin_state, checkpoint_blocks
from unnoise.training.machine import MachineSettings
from unnoise.training.parallel import Processes
from unnoise.training.settings import TrainingSettings
from unnoise.training.sharded import local, shard

from ..conftest import PRELOADED

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


def frozen_encoder(rank):
    """How far what an encoder says beside a spread network is off from what it says alone, and how much of it is spread."""
    tokenizer = learn_tokenizer(["a red square", "a blue circle on the left"], 300)
    encoder = text_encoders.build({"name": "transformer", "width": 6, "depth": 1, "heads": 2, "length": 8})
    encoder = replace(encoder, config=replace(encoder.config, vocabulary=tokenizer.size))
    text = TextConditioning(encoder, tokenizer, learned=False)
    torch.manual_seed(3)
    network = text.around(make("latent_unet"))
    ids = text.ids(["a red circle", "a blue square"])

    def said():
        return torch.cat([network.states(ids)["context"], network.null_condition(2)["context"]])

    before = said()
    shard(network, torch.float32, Processes(rank, 2), torch.device("cpu"))
    network.train()
    x, levels, _ = batch()
    network(x[:2], levels[:2], network.states(ids)).square().sum().backward()
    spread = [p for name, p in network.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.full_tensor().isfinite().all() for p in spread[:4])
    return [float((said() - before).abs().max()), sum(local(p) is not p for p in network.text.parameters())]


def self_conditioning(rank):
    """How far the loss of one process's samples is off, whose recalls differ from process to process, from the loss alone."""
    misses = []
    recalls = torch.tensor([[True, False], [False, False], [True, True]])[:, rank : rank + 1]
    for own in recalls:
        losses = []
        for together in (False, True):
            cls, objective = networks["dit"], MSEObjective()
            torch.manual_seed(0)
            network = cls((4, 4, 6), (2, 4, 6), config=cls.Config(width=16, depth=2, heads=2))
            denoiser = NoiseDenoiser(network, LinearSchedule(), 1.0, self_conditioned=True)
            if together:
                shard(denoiser.network, torch.float32, Processes(rank, 2), torch.device("cpu"))
            x_0, eps = torch.full((1, 2, 4, 6), 0.3), torch.full((1, 2, 4, 6), -0.7)
            draws = Draws(x_0, eps, torch.tensor([0.4], dtype=torch.float64), None, recalls=own)
            loss_ = objective.losses(denoiser, objective.prepare(denoiser, draws))
            loss_.sum().backward()
            losses.append(float(loss_))
        misses.append(abs(losses[0] - losses[1]))
    return misses


def begun(rank):
    """How many a process shares memory with, and of which weights more than a share stood on its device, at a run's beginning."""
    network, asked, whole_there = make("dit"), [], []
    moved = network.to

    def to(device):
        whole_there.extend(name for name, parameter in network.named_parameters() if local(parameter) is parameter)
        return moved(device)

    network.to = to
    machine = MachineSettings(parallel="fsdp", precision="fp32", compile=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("unnoise.training.execution.free_bytes", lambda device, sharers: asked.append(sharers))
        cpu, processes = torch.device("cpu"), Processes(rank, 2, rank, 2)
        state = begin_state(network, (2, 4, 6), TrainingSettings(batch_size=4), machine, cpu, processes)
    numbers = sum(parameter.numel() for parameter in make("dit").parameters())
    return {"asked": asked, "whole": whole_there, "share": sum(view.numel() for view in state.masters.views) / numbers}


def work(rank, place):
    """What one of two processes does: by network, how far its gradients are off, and whether they are numbers in bfloat16."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=90)
    )
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
    found |= {"frozen encoder": frozen_encoder(rank), "self-conditioning": self_conditioning(rank)}
    found["begun"] = begun(rank)
    if rank == 0:
        (place / "found.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    place = tmp_path_factory.mktemp("sharded")
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    start_processes(work, (place,), nprocs=2, start_method="forkserver")
    return json.loads((place / "found.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_two_processes_are_those_of_one(found, name):
    precise, coarse = found[name]
    assert precise < 1e-5
    assert coarse < 0.3


def test_an_encoder_that_does_not_learn_is_whole_in_every_process_and_says_the_same(found):
    furthest, spread = found["frozen encoder"]
    assert furthest < 1e-6
    assert spread == 0


def test_processes_work_together_whoever_of_them_recalls_an_estimate(found):
    assert max(found["self-conditioning"]) < 1e-6


def test_a_network_that_is_shared_out_is_never_whole_on_a_device(found):
    assert found["begun"]["whole"] == []
    assert 0.4 < found["begun"]["share"] < 0.6
    assert found["begun"]["asked"] == [2]
