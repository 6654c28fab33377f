"""Dropout whose mask of a sample does not depend on the batch in which the sample stands."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Key = tuple[int, int]
GOLDEN = 0x9E3779B97F4A7C15
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Of SplitMix64."""
WORD_MIXERS = (0x7FEB352D, 0x2C1B3C6D)
"""Odd, below 2^31."""


class Dropout(nn.Module):
    """Zeroes a share of the values while training, and scales the others so that the mean stays.

    Once `address_dropout` has told it an address, sample k of the batch has the same mask in whatever part of the batch it goes
    through the network, also when a part is computed a second time on the way back; and nothing is dropped where no gradient is
    wanted. Before that, torch's own generator says what is dropped.

    Args:
        share: In [0, 1].

    References:
        Dropout: A Simple Way to Prevent Neural Networks from Overfitting (Srivastava et al., 2014)
        Fast Splittable Pseudorandom Number Generators (Steele et al., 2014), for what mixes the bits
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share
        self.address: tuple[Key, int, int] | None = None
        """Key, number of this layer in the network, and place of the first sample in the batch."""
        self._draw: Callable[[Dropout, Tensor], Tensor] = _mask

    def extra_repr(self) -> str:
        """What `print` says beside the name."""
        return f"share={self.share}"

    def drops(self) -> bool:
        """Whether it changes anything as it stands now."""
        return self.training and self.share != 0

    def forward(self, x: Tensor) -> Tensor:
        """Shape of x, (B, ...)."""
        if not self.drops():
            return x
        if self.address is None:
            return nn.functional.dropout(x, self.share)
        if not torch.is_grad_enabled():
            return x
        return x * self._draw(self, x)

    def keep_from_compiler(self) -> None:
        """Keeps a compiler away from its masks, which it would compile anew for every address.

        It is no decorator, which alone imports the compiler: two seconds of every command.
        """
        self._draw = torch.compiler.disable(_mask)


def _mask(layer: Dropout, x: Tensor) -> Tensor:
    assert layer.address is not None
    if layer.share == 1:
        return torch.zeros_like(x)
    key, number, first = layer.address
    return kept(key, number, first, layer.share, x.detach()).mul_(1 / (1 - layer.share))


def kept(key: Key, number: int, first: int, share: float, like: Tensor) -> Tensor:
    """1 where a value stays and 0 where it is dropped.

    Args:
        key: From `randomness.address`.
        number: Of the layer.
        first: Place of the first sample in the batch.
        share: Of the values that are dropped, in [0, 1).
        like: Gives the shape (B, ...), dtype, device, and the order of the values in memory, on which none of them depends.
    """
    inner = like.movedim(1, -1)
    last = like.ndim > 2 and inner.is_contiguous() and not like.is_contiguous()
    places = torch.arange(like[:1].numel(), device=like.device)
    if last:
        places = places.view(like.shape[1:]).movedim(0, -1).flatten()
    words = key[0] | key[1] << 32
    of_layer = _mixed(torch.tensor(_signed(words + GOLDEN * (number + 1))))
    rows = torch.arange(first, first + len(like)) * _signed(GOLDEN) + of_layer
    columns = places * _signed(GOLDEN) + of_layer.to(like.device) * 3
    bits = _word(rows).to(like.device)[:, None] ^ _word(columns)
    # Rows and columns are mixed already; what is left to do is to hide that they were joined by an exclusive or.
    for by in WORD_MIXERS:
        bits.mul_(by)
        bits ^= (bits >> 15).bitwise_and_(0x1FFFF)
    least = round(share * 2**32) - 2**31
    mask = (bits >= least).to(like.dtype)
    return mask.view(inner.shape).movedim(-1, 1) if last else mask.view(like.shape)


def _mixed(state: Tensor) -> Tensor:
    """64 bits from 64 bits, such that each depends on all."""
    for shift, by in zip((30, 27), MIXERS, strict=True):
        state = (state ^ _shifted(state, shift)) * _signed(by)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, by: int) -> Tensor:
    """To the right, filled with zeros."""
    return (state >> by) & ((1 << (64 - by)) - 1)


def _word(state: Tensor) -> Tensor:
    """The upper half of the mixed bits, int32."""
    return (_mixed(state) >> 32).to(torch.int32)


def _signed(value: int) -> int:
    """The number whose 64 bits in two's complement are the lowest of `value`."""
    return (value + 2**63) % 2**64 - 2**63


def address_dropout(network: nn.Module, key: Key, first: int = 0) -> None:
    """Tells every `Dropout` in a network what its masks come from, until it is told again.

    Args:
        network: Layers are numbered in its order.
        key: From `randomness.address`, another one for every step.
        first: Place of the first sample in the batch.
    """
    for number, layer in enumerate(layer for layer in network.modules() if isinstance(layer, Dropout)):
        layer.address = key, number, first
