"""What is worked out again on the way back: the same bytes as where it is kept, for less memory."""

import weakref
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from unnoise.nn import forgetting as module
from unnoise.nn.blocks import SelfAttention
from unnoise.nn.conditions import Context
from unnoise.nn.dit import DiTBlock, DiTConfig
from unnoise.nn.flux import FluxConfig, SingleBlock
from unnoise.nn.forgetting import forgetting
from unnoise.nn.joint import JointBlock
from unnoise.nn.kernels.library import library
from unnoise.nn.linear import Linear
from unnoise.nn.lora import LoRASettings, attach
from unnoise.nn.modulation import geglu, gelu, modulated_norm
from unnoise.nn.spatial_transformer import TransformerBlock
from unnoise.training.memory import kept_bytes

B, TOKENS, WIDTH = 3, 10, 16
JOINT = {"width": WIDTH, "heads": 2, "context": WIDTH}


class Told(torch.nn.Module):
    """A block with what it takes beside the tokens, as one learns and counts with it."""

    def __init__(self, block, *beside, shape=(TOKENS, WIDTH)):
        super().__init__()
        self.block, self.shape = block, shape
        self.beside = torch.nn.ParameterList(torch.nn.Parameter(torch.randn(shape)) for shape in beside)

    def forward(self, x, noise_level=None, cond=None):
        """What the block makes of the tokens."""
        beside = (each[: len(x)] for each in self.beside)
        return self.call(x, *beside)

    def call(self, x, *beside):
        """As the block is called."""
        return self.block(x, *beside)


class Looking(Told):
    """A block that looks up a context."""

    def call(self, x, *beside):
        """As the block is called."""
        *steering, context = beside
        return self.block(x, *steering, Context(context))


class Joint(Told):
    """A block of words and places."""

    def call(self, x, words, told):
        """Both kinds of tokens after it."""
        return torch.cat([part for part in self.block(x, words, told) if part is not None], dim=1)


def made(name):
    """A block whose every weight matters."""
    torch.manual_seed(0)
    block = {
        "dit": lambda: Told(DiTBlock(DiTConfig(width=WIDTH, heads=2)), (B, 6 * WIDTH)),
        "dit with words": lambda: Looking(
            DiTBlock(DiTConfig(width=WIDTH, heads=2, context=8)), (B, 6 * WIDTH), (B, 4, WIDTH)
        ),
        "joint": lambda: Joint(JointBlock(FluxConfig(**JOINT), qk_norm=True, twice=True), (B, 5, WIDTH), (B, WIDTH)),
        "last joint": lambda: Joint(
            JointBlock(FluxConfig(**JOINT), qk_norm=True, last=True), (B, 5, WIDTH), (B, WIDTH)
        ),
        "single": lambda: Told(partial_single(), (B, WIDTH)),
        "latent": lambda: Looking(TransformerBlock(WIDTH, 2, 8), (B, 5, 8)),
        "places": lambda: Told(SelfAttention(WIDTH, 8, 4), shape=(WIDTH, 4, 4)),
    }[name]()
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return block


def partial_single():
    """A single block of FLUX that nobody turns."""
    block = SingleBlock(FluxConfig(**JOINT))
    block.forward = partial(block.forward, mask=None, angles=torch.zeros(TOKENS, WIDTH // 4))
    return block


BLOCKS = ["dit", "dit with words", "joint", "last joint", "single", "latent", "places"]


def learned(block, dtype=torch.float32):
    """What it gives, and every gradient."""
    x = torch.randn(B, *block.shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    x = x if x.ndim == 3 else x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    out = block(x)
    pull = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(dtype)
    return out, *torch.autograd.grad(out, (x, *block.parameters()), pull, materialize_grads=True)


@pytest.fixture
def keeping(monkeypatch):
    """Turns forgetting off."""
    return lambda: monkeypatch.setattr(module, "on_processor", lambda _: False)


@pytest.fixture
def made_again(monkeypatch):
    """What was made again."""
    calls, call = [], module._Again.__call__
    monkeypatch.setattr(module._Again, "__call__", lambda self: calls.append(self.make) or call(self))
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_learns_the_same_bytes(name, dtype, made_again, keeping):
    block = made(name).to(dtype)
    ours = learned(block, dtype)
    assert made_again
    made_again.clear()
    keeping()
    theirs = learned(block, dtype)
    assert not made_again
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


class Doubled(torch.autograd.Function):
    """2 x, in memory that tells when it is given back."""

    given: ClassVar = []

    @staticmethod
    def forward(ctx, x):
        """Shape of x."""
        numbers = 2 * x.detach().numpy()
        Doubled.given.append(weakref.ref(numbers))
        return torch.from_numpy(numbers)

    @staticmethod
    def backward(ctx, gradient):
        """Shape of x."""
        return 2 * gradient


@pytest.fixture
def given():
    """The memories, in turn."""
    Doubled.given.clear()
    return Doubled.given


def test_the_memory_of_what_is_forgotten_is_given_back(given, keeping):
    layer, x = Linear(8, 4), torch.randn(5, 8, requires_grad=True)
    out = forgetting(layer, Doubled.apply, x)
    assert [each() for each in given] == [None]
    out.sum().backward()
    assert len(given) == 2
    keeping()
    out = forgetting(layer, Doubled.apply, x)
    assert given[2]() is not None
    out.sum().backward()
    assert len(given) == 3


def test_nothing_is_made_again_where_no_gradient_is_wanted_or_the_layer_does_not_learn(made_again):
    layer, x = Linear(8, 4), torch.randn(5, 8, requires_grad=True)
    with torch.no_grad():
        forgetting(layer, gelu, x)
    forgetting(layer.requires_grad_(False), gelu, x).sum().backward()
    assert not made_again


def test_views_of_it_are_made_again_and_what_is_no_view_is_kept(made_again):
    x, other = torch.randn(6, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)

    def layer(h):
        return (h[1::3].t() @ other).sin() * h[:4].t()

    forgetting(layer, torch.exp, x).sum().backward()
    assert len(made_again) == 2
    found, learned = x.grad.clone(), other.grad.clone()
    x.grad = other.grad = None
    layer(x.exp()).sum().backward()
    assert torch.equal(found, x.grad)
    assert torch.equal(learned, other.grad)


def test_it_can_be_differentiated_twice(made_again):
    torch.manual_seed(0)
    layer, x = Linear(6, 3), torch.randn(2, 4, 6)
    inputs = [x, *torch.randn(2, 2, 6)]
    inputs, layer = [each.double().requires_grad_() for each in inputs], layer.double()
    make = partial(forgetting, layer, modulated_norm)
    assert torch.autograd.gradcheck(make, inputs)
    assert torch.autograd.gradgradcheck(make, inputs)
    assert torch.autograd.gradgradcheck(geglu, inputs[:1])
    assert made_again


def test_adapters_read_it_too(made_again):
    block = made("dit")
    attach(block, LoRASettings(rank=2))
    plain = learned(block)
    assert len(made_again) > 3
    assert float(plain[1].abs().max()) > 0


def test_blocks_that_are_forgotten_as_a_whole_keep_nothing_for_it(given):
    layer, x = Linear(8, 4), torch.randn(5, 8, requires_grad=True)
    plain = forgetting(layer, Doubled.apply, x)
    given.clear()
    out = checkpoint(partial(forgetting, layer, Doubled.apply), x, use_reentrant=False)
    assert torch.equal(out, plain)
    assert [each() for each in given] == [None]
    out.sum().backward()
    assert len(given) == 2


def test_who_decides_what_is_kept_is_asked_about_all_of_it():
    layer, x, kept = Linear(8, 4), torch.randn(5, 8, requires_grad=True), []
    with saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        out = forgetting(layer, torch.exp, x)
    assert sum(torch.equal(each, x.exp()) for each in kept if each.shape == x.shape) >= 1
    out.sum().backward()


WIDE, MANY, SAMPLES = 64, 64, 4
# In widths of a token. Of a block of DiT: what a normalisation takes, makes and shifts, queries, keys, values, what attention mixes
# and its layer gives, the former three again, four that enter a GELU, four that leave it, and what leaves.
KEPT = {"dit": (20, 12), "latent": (28, 17)}


@pytest.mark.skipif(library() is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize("name", KEPT)
def test_a_third_of_what_a_block_keeps_is_forgotten_and_that_is_foretold(name):
    block = {
        "dit": lambda: Told(DiTBlock(DiTConfig(width=WIDE, heads=4)), (SAMPLES, 6 * WIDE)),
        "latent": lambda: Looking(TransformerBlock(WIDE, 4, 8), (SAMPLES, 2, 8)),
    }[name]()
    found = [
        kept_bytes(block, (MANY, WIDE), SAMPLES, device=kind) / (4 * SAMPLES * MANY * WIDE) for kind in ("cuda", "cpu")
    ]
    assert found == pytest.approx(KEPT[name], abs=0.5)
