"""One thread where a step is too small to share, by sizes alone."""

import torch
from torch import nn

from unnoise.nn.dit import DiT, DiTConfig
from unnoise.training.threads import SMALL_STEP, step_operations, threads_for


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
