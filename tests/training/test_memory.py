"""What a step takes in memory, worked out before it is taken."""

from pathlib import Path

import pytest
import torch
from torch import nn

from unnoise.errors import BadOption
from unnoise.nn.attention import attend
from unnoise.nn.base import networks
from unnoise.nn.kernels.library import library
from unnoise.precision import lower
from unnoise.training.machine import MachineSettings
from unnoise.training.memory import (
    check_memory,
    free_bytes,
    kept_bytes,
    most_at_once,
    samples_held,
    state_bytes,
    without_memory,
)


class Chain(nn.Module):
    """Keeps what enters each of its layers, and the output of the first activation."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 100), nn.Linear(100, 10)

    def forward(self, x, noise_level, cond=None):
        return self.second(torch.relu(self.first(x)))


def test_what_is_kept_is_counted_by_hand():
    # The first layer keeps its input (10), the activation its result (100), which is the second layer's input too.
    assert kept_bytes(Chain(), (10,), 1) == 4 * 110
    assert kept_bytes(Chain(), (10,), 7) == 7 * 4 * 110
    low = Chain()
    lower(low, torch.bfloat16)
    assert kept_bytes(low, (10,), 7) == 7 * 2 * 110


def test_a_u_net_keeps_what_its_size_says():
    cls = networks["unet"]
    network = cls((3, 16, 16), config=cls.Config(width=16, multipliers=(1, 2)))
    one, two, three = (kept_bytes(network, (3, 16, 16), n) for n in (1, 2, 3))
    assert three - two == two - one > 0
    assert kept_bytes(network, (3, 32, 32), 1) > 3.5 * one


class Remembering(Chain):
    """Draws, and changes what it holds, whenever it is called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, noise_level, cond=None):
        self.calls += 1
        return super().forward(nn.functional.dropout(x, 0.5), noise_level)


def test_counting_leaves_the_network_and_the_random_numbers_as_they_were():
    network, before = Remembering(), torch.get_rng_state()
    assert kept_bytes(network, (10,), 3) > 0
    assert network.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


class Attending(nn.Module):
    """Attention of four heads to nothing but its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, noise_level, cond=None):
        """What it mixes, shape (B, tokens, 4, 8)."""
        return attend(x, x, x)


def test_attention_keeps_what_enters_and_leaves_it_and_no_scores():
    for tokens in (64, 256):  # and for each token and head the logarithm of a sum
        assert kept_bytes(Attending(), (tokens, 4, 8), 3) == 3 * tokens * 4 * (2 * 8 + 1) * 4


@pytest.mark.skipif(library() is None, reason="there is no C++ compiler here")
def test_a_gpu_keeps_more_than_a_processor_or_a_compiler():
    network = networks["ddpm_unet"]((3, 16, 16))
    here, there = (kept_bytes(network, (3, 16, 16), 4, device=kind) for kind in ("cpu", "cuda"))
    assert there > 1.5 * here
    gpu = torch.device("cuda")
    assert [MachineSettings(compile=each).keeps_as(gpu) for each in (True, False, "auto")] == ["cpu", "cuda", "cuda"]
    assert MachineSettings().keeps_as(torch.device("cpu")) == "cpu"


def test_the_state_is_masters_gradients_average_and_two_moments_beside_what_the_network_has():
    weights = sum(p.numel() for p in Chain().parameters())
    assert state_bytes(Chain()) == 4 * weights * 6  # the gradient twice: as the backward pass leaves it, and summed
    low = Chain()
    lower(low, torch.bfloat16)
    assert state_bytes(low) == 4 * weights * 5 + 2 * weights + 2 * weights
    frozen = Chain()
    frozen.first.requires_grad_(False)
    assert state_bytes(frozen) == 4 * 1100 + 4 * 1010 * 6


def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does():
    free = state_bytes(Chain()) + int(1.15 * 440 * 10.5)
    check_memory(Chain(), (10,), 10, 0, free)
    check_memory(Chain(), (10,), 1000, 10, free)
    check_memory(Chain(), (10,), 10**9, 0, None)
    with pytest.raises(BadOption, match=r"the largest number that fits is 10; add machine\.micro_batch=10"):
        check_memory(Chain(), (10,), 11, 0, free)
    with pytest.raises(BadOption, match="not even one sample fits"):
        check_memory(Chain(), (10,), 11, 0, state_bytes(Chain()))
    # Of four that share the weights each has a quarter of the state, and whole weights with their gradients while it works.
    shared = state_bytes(Chain()) // 4 + 2 * 4 * 2110 + int(1.15 * 440 * 10.5)
    check_memory(Chain(), (10,), 10, 0, shared, sharers=4)
    with pytest.raises(BadOption, match="the largest number that fits is 10;"):
        check_memory(Chain(), (10,), 11, 0, shared, sharers=4)
    with pytest.raises(BadOption, match=r"the largest number that fits is 10; add training\.batch_size=10$"):
        check_memory(Chain(), (10,), 11, 0, free, whole=True)  # of which no part can be worked on alone


def test_what_is_free_is_less_than_what_there_is():
    free = free_bytes()
    assert free is None or 0 < free < 2**50


def test_what_torch_has_set_aside_on_a_gpu_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert free_bytes(torch.device("cuda", 0)) == 320
    assert free_bytes(torch.device("cuda", 0), sharers=8) == 320  # each process has a GPU of its own
    assert free_bytes(torch.device("xpu")) is None


def test_a_mac_tells_what_it_recommends_and_what_is_taken(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    for taken, free in ((300, 700), (1200, 0)):
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda taken=taken: taken)
        assert free_bytes(torch.device("mps")) == free
    monkeypatch.delattr(torch.mps, "recommended_max_memory")  # a torch that does not tell
    assert free_bytes(torch.device("mps")) is None


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    def told(path, encoding=None):
        if path == Path("/proc/meminfo"):
            return "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n"
        raise OSError(path)

    monkeypatch.setattr(Path, "read_text", told)
    assert free_bytes() == 4_096_000
    assert free_bytes(torch.device("cpu"), sharers=4) == 1_024_000


def test_a_part_that_fits_at_once_is_halved_where_its_gradient_is_measured():
    assert [most_at_once(7, micro) for micro in (0, 3, 7, 9)] == [7, 3, 7, 7]
    assert [most_at_once(7, micro, halved=True) for micro in (0, 3, 7, 9)] == [4, 3, 4, 4]
    assert [most_at_once(1, 0, halved) for halved in (False, True)] == [1, 1]


def test_recordings_of_every_size_are_held_together_and_other_steps_one_at_a_time():
    assert [samples_held(16, micro) for micro in (0, 16, 6, 1)] == [16, 16, 6, 1]
    # 16 and its half; the same; 6 and what is left of 16; nothing but ones.
    assert [samples_held(16, micro, recorded=True) for micro in (0, 16, 6, 1)] == [16 + 8, 16 + 8, 6 + 4, 1]
    assert samples_held(15, 0, recorded=True) == 15 + 8 + 7
    assert samples_held(1, 0, recorded=True) == 1


def test_a_batch_whose_recordings_do_not_fit_is_refused_with_the_largest_that_does():
    free = state_bytes(Chain()) + int(1.15 * 440 * 10.5)  # of ten samples
    check_memory(Chain(), (10,), 6, 0, free, recorded=True)  # 6 + 3
    check_memory(Chain(), (10,), 8, 0, free)
    with pytest.raises(BadOption, match=r"8 samples at once and what is recorded of their steps need") as told:
        check_memory(Chain(), (10,), 8, 0, free, recorded=True)  # 8 + 4
    ways = "machine.micro_batch=7, which gives the same result, or machine.cuda_graphs=false"  # 7 + 1
    assert str(told.value).endswith(f": the largest number that fits is 7; add {ways}")
    # Not 10 + 9, 9 + 2 or 8 + 5, but 7 + 1; and 29 do not fit without recordings either.
    with pytest.raises(BadOption, match=r"fits is 7; add machine\.micro_batch=7, which gives the same result$"):
        check_memory(Chain(), (10,), 29, 0, free, recorded=True)


def test_a_copy_without_memory_is_counted_as_what_will_compute():
    network = Chain()
    twin = without_memory(network)
    assert {p.device.type for p in twin.parameters()} == {"meta"}
    assert (kept_bytes(twin, (10,), 7), state_bytes(twin)) == (kept_bytes(network, (10,), 7), state_bytes(network))
    lower(twin, torch.bfloat16)
    assert kept_bytes(twin, (10,), 7) == 7 * 2 * 110
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in network.parameters())
