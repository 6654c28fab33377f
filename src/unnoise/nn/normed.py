"""A normalisation and the convolution behind it, as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .by_hand import hooked
from .convolution import Conv2d
from .dropout import Dropout
from .group_norm import GroupNorm
from .kernels import normed


def convolve_normed(
    norm: GroupNorm,
    conv: nn.Module,
    x: Tensor,
    added: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """conv(dropout(norm(x, added, scale, shift))), without keeping what lies between for the way back where that can be spared.

    Args:
        norm: What normalises.
        conv: What convolves its results.
        x: Shape (B, channels, *size).
        added: As in `GroupNorm.forward`.
        scale: The same.
        shift: The same.
        dropout: What drops some of what the convolution reads, if anything does.

    Returns:
        Shape (B, out_channels, *size).
    """
    if torch.is_grad_enabled() and _are_as_built(norm, conv) and (dropout is None or not dropout.drops()):
        assert isinstance(conv, Conv2d)
        if normed.fits(x, conv):
            inputs = (x, norm.weight, norm.bias, added, scale, shift)
            return normed.convolve(inputs, norm.num_groups, norm.eps, norm.silu, conv)
    h = norm(x, added, scale, shift)
    out: Tensor = conv(h if dropout is None else dropout(h))
    return out


def _are_as_built(norm: GroupNorm, conv: nn.Module) -> bool:
    return type(norm) is GroupNorm and type(conv) is Conv2d and not hooked(norm) and not hooked(conv)
