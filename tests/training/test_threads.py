"""One thread where a step is too small to share, by sizes alone."""

import copy
import json
import platform

import pytest
import torch
from torch import nn

from unnoise.nn.base import networks
from unnoise.nn.dit import DiT, DiTConfig
from unnoise.precision import lower
from unnoise.training import threads
from unnoise.training.threads import SMALL_STEP, place_to_try, step_operations, threads_for


class Told(nn.Module):
    """A network as the counter calls it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, noise_level, cond):
        return self.inner(x)


def test_operations_are_three_times_those_of_the_forward_pass():
    dense = Told(nn.Linear(10, 20, bias=False))
    assert step_operations(dense, (10,), 64) == 3 * 2 * 10 * 20 * 64
    convolution = Told(nn.Conv2d(3, 5, 3, padding=1, bias=False))
    assert step_operations(convolution, (3, 8, 8), 4) == 3 * 2 * 3 * 5 * 9 * 64 * 4


SIZES = [
    ("ddpm_unet", (3, 16, 16)),
    ("unet", (1, 32)),
    ("latent_unet", (4, 8, 8)),
    ("mmdit", (3, 8, 8)),
    ("mlp", (3, 4, 4)),
]


@pytest.mark.parametrize(("name", "shape"), SIZES)
def test_what_is_tried_on_the_processor_counts_as_without_memory(monkeypatch, name, shape):
    network = networks[name](shape)
    assert place_to_try(network, shape).type == "cpu"
    tried = step_operations(network, shape, 2)
    monkeypatch.setattr(threads, "MOST_PLACES", 0)
    assert place_to_try(network, shape).type == "meta"
    assert tried == step_operations(network, shape, 2) > 0


def test_what_is_large_or_lies_elsewhere_is_not_tried_on_the_processor():
    small, large = Told(nn.Conv2d(3, 8, 3)), Told(nn.Conv2d(64, 64, 3))
    assert place_to_try(small, (3, 32, 32)).type == "cpu"
    assert place_to_try(small, (3, 64, 64)).type == "meta"
    assert place_to_try(large, (64, 32, 32), 2000).type == "meta"
    assert place_to_try(copy.deepcopy(small).to("meta"), (3, 32, 32)).type == "meta"
    lower(small, torch.bfloat16)
    assert place_to_try(small, (3, 32, 32)).type == "meta"


def test_operations_are_those_of_the_network_whatever_library_works_them_out():
    width, depth, tokens = 128, 2, 64
    network = DiT((4, 16, 16), config=DiTConfig(width=width, depth=depth, heads=2, patch=2))
    in_blocks = depth * tokens * (12 * width**2 + 2 * tokens * width)  # multiplications, of layers and of attention
    counted = step_operations(network, (4, 16, 16), 1) / 6
    assert in_blocks < counted < 1.2 * in_blocks


def test_small_steps_use_one_thread_and_leave_things_as_they_were():
    before = torch.get_num_threads()
    with threads_for(SMALL_STEP / 2) as few:
        assert few == torch.get_num_threads() == 1
    with threads_for(SMALL_STEP * 2) as many:
        assert many == before
    assert torch.get_num_threads() == before


SETTLES = """
import ctypes, json, os, platform, sys
from pathlib import Path

import torch

from unnoise import precision
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run


class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks kept".split()]


def mapped():
    # Whether the C library asks the system for 64 MB by themselves, and so would hand them back at once.
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    libc.mallinfo.restype, libc.malloc.restype = Info, ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    before = libc.mallinfo().hblks
    block = libc.malloc(2**26)
    after = libc.mallinfo().hblks
    libc.free(block)
    return after > before


for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "UNNOISE_THREADS"):
    os.environ.pop(name, None)
precision.processors_paid_for = lambda: 2.0
torch.set_num_threads(5)
small = ["training.steps=2", "training.validation_size=16", "training.sample_every=0", "tracking.trackers=[]"]
run = Run(load_recipe("spiral", small), sys.argv[2])
told = [[torch.get_num_threads(), mapped()]]
list(run.events())
told.append([torch.get_num_threads(), mapped()])
Path(sys.argv[1]).write_text(json.dumps(told))
"""


def test_a_run_keeps_the_memory_that_it_frees_and_uses_the_processors_that_it_has(interpreters, tmp_path):
    assert interpreters.run(SETTLES, tmp_path / "told.json", tmp_path / "run") == 0, interpreters.said.read_text()
    glibc = platform.libc_ver()[0] == "glibc"
    before, after = ([5, True], [2, False]) if glibc else ([5, None], [2, None])
    assert json.loads((tmp_path / "told.json").read_text()) == [before, after]
