"""A normalisation and a convolution as one, against the one after the other."""

import copy

import pytest
import torch

from unnoise.nn.blocks import AddedResidualBlock, ResidualBlock
from unnoise.nn.convolution import Conv2d
from unnoise.nn.dropout import Dropout
from unnoise.nn.group_norm import GroupNorm
from unnoise.nn.kernels import normed
from unnoise.nn.kernels.library import library
from unnoise.nn.lora import LoRASettings, attach
from unnoise.nn.normed import convolve_normed
from unnoise.training.memory import kept_bytes

pytestmark = pytest.mark.skipif(library() is None, reason="there is no C++ compiler here")

BLOCKS = [ResidualBlock, AddedResidualBlock]


def batch(samples=8, channels=64, size=16):
    return torch.randn(samples, channels, size, size).contiguous(memory_format=torch.channels_last)


def block_and_inputs(cls, **options):
    torch.manual_seed(0)
    block = cls(2, 64, 96, 32, **options)
    for parameter in block.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return block, batch().requires_grad_(), torch.randn(8, 32).requires_grad_()


def learned(block, x, told):
    out = block(x, told)
    pull = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape)
    return out, *torch.autograd.grad(out, (x, told, *block.parameters()), pull)


@pytest.fixture
def counted(monkeypatch):
    """What was worked out as one."""
    calls, convolve = [], normed.convolve
    monkeypatch.setattr(normed, "convolve", lambda *asked: calls.append(asked) or convolve(*asked))
    return calls


@pytest.mark.parametrize("cls", BLOCKS)
def test_as_one_they_give_and_learn_the_same_bytes(cls, counted, monkeypatch):
    block, *inputs = block_and_inputs(cls)
    ours = learned(block, *inputs)
    assert len(counted) == 2
    monkeypatch.setattr(normed, "fits", lambda *_: False)
    theirs = learned(block, *inputs)
    assert len(counted) == 2
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cls", BLOCKS)
def test_they_can_be_differentiated_twice(cls, counted):
    def curvature(block, x, told):
        [slope] = torch.autograd.grad(block(x, told).sin().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, told, *block.parameters()), materialize_grads=True)

    block, *inputs = block_and_inputs(cls)
    found = curvature(block, *inputs)
    assert len(counted) == 2
    exact = curvature(copy.deepcopy(block).double(), *(each.detach().double().requires_grad_() for each in inputs))
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).norm()) <= 2e-5 * float(other.norm())


def test_only_what_is_asked_for_is_differentiated():
    torch.manual_seed(0)
    norm, conv, x = GroupNorm(8, 64, silu=True), Conv2d(64, 32, 3, padding=1), batch()
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    convolve_normed(norm, conv, x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is None
    assert torch.equal(conv.bias.grad, torch.full((32,), 8.0 * 16 * 16))
    x.requires_grad_()
    conv.requires_grad_(False)
    [slope] = torch.autograd.grad(convolve_normed(norm, conv, x).sum(), x)
    wide = copy.deepcopy(norm).double(), copy.deepcopy(conv).double(), x.detach().double().requires_grad_()
    [exact] = torch.autograd.grad(convolve_normed(*wide).sum(), wide[2])
    assert float((slope - exact).norm()) < 1e-5 * float(exact.norm())


def test_what_lies_between_is_not_kept():
    norm, conv, x = GroupNorm(8, 64, silu=True), Conv2d(64, 64, 3, padding=1), batch()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: saved.append(each) or each, lambda each: each):
        convolve_normed(norm, conv, x.requires_grad_())
    assert [each.data_ptr() for each in saved if each.shape == x.shape] == [x.data_ptr()]


class Told(torch.nn.Module):
    """A block that is called as networks are."""

    def __init__(self):
        super().__init__()
        self.block = ResidualBlock(2, 64, 64, 32)

    def forward(self, x, noise_level, cond=None):
        """What the block gives, told nothing."""
        return self.block(x, noise_level[:, None].expand(-1, 32))


def test_what_will_be_kept_is_foretold_without_memory(monkeypatch):
    network = Told().to("meta")
    as_one = kept_bytes(network, (64, 16, 16), 8)
    monkeypatch.setattr(normed, "fits", lambda *_: False)
    between = 2 * 8 * 64 * 16 * 16 * 4
    assert kept_bytes(network, (64, 16, 16), 8) - as_one == between


def test_a_step_without_memory_has_the_shapes_of_one_with_it():
    block, x, told = block_and_inputs(ResidualBlock)
    there = [each.detach().to("meta").requires_grad_() for each in (x, told)]
    found = learned(copy.deepcopy(block).to("meta"), *there)
    assert [each.shape for each in found] == [each.shape for each in learned(block, x, told)]


def test_weights_that_lie_elsewhere_are_an_error_and_no_crash():
    block, *inputs = block_and_inputs(ResidualBlock)
    block.norm_in.to("meta")
    with pytest.raises(RuntimeError, match="expected all tensors on the processor, but one is on meta"):
        block(*inputs)


def test_dropout_between_them_drops(counted):
    torch.manual_seed(0)
    norm, conv, x = GroupNorm(8, 64, silu=True), Conv2d(64, 32, 3, padding=1), batch()
    everything = Dropout(1.0)
    out = convolve_normed(norm, conv, x, dropout=everything)
    assert torch.equal(out, conv.bias[:, None, None].expand_as(out))
    assert not counted
    assert torch.equal(convolve_normed(norm, conv, x, dropout=everything.eval()), convolve_normed(norm, conv, x))
    assert len(counted) == 2


def test_what_hangs_on_the_convolution_is_called(counted):
    block, *inputs = block_and_inputs(AddedResidualBlock)
    before = block(*inputs)
    counted.clear()
    attach(block, LoRASettings(rank=2, layers=("conv_in",)))
    block.conv_in.lora[0].up.weight.data.normal_()
    assert not torch.allclose(block(*inputs), before)
    assert len(counted) == 1  # conv_out
