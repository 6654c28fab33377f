"""A convolution of normalised data that does not keep that data for its way back: it is worked out again from what was normalised.

Half of what a U-Net keeps is data between a normalisation and a convolution. To normalise it once more reads and writes it once,
which is little beside the convolution.

References:
    In-Place Activated BatchNorm for Memory-Optimized Training of DNNs (Rota Bulò et al., 2018), https://arxiv.org/abs/1712.02616
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import group_norm, winograd


def fits(x: Tensor, layer: nn.Conv2d) -> bool:
    """Whether a batch can be normalised by the kernel, and be convolved by Winograd's way then.

    Args:
        x: Shape (B, channels, H, W); a tensor without memory counts as one on a CPU.
        layer: A convolution.
    """
    return group_norm.fits(x) and winograd.pays(x, layer)


def convolve(inputs: group_norm.Inputs, groups: int, epsilon: float, silu: bool, layer: nn.Conv2d) -> Tensor:
    """The layer's results, shape (B, out, H, W), on a normalised batch.

    Args:
        inputs: x, weight, bias, added, scale and shift, as in `group_norm.group_norm`.
        groups: As there.
        epsilon: As there.
        silu: As there.
        layer: A convolution that `fits`.
    """
    out: Tensor = _Normed.apply(*inputs, layer.weight, layer.bias, groups, epsilon, silu)  # type: ignore[no-untyped-call]
    return out


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        added: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        kernel: Tensor,
        level: Tensor | None,
        groups: int,
        epsilon: float,
        silu: bool,
    ) -> Tensor:
        inputs = (x, weight, bias, added, scale, shift)
        out = winograd.room(x, len(kernel))
        normed, table = group_norm.normalized(inputs, groups, epsilon, silu)
        ctx.save_for_backward(*inputs, kernel, level, table)
        ctx.options = groups, epsilon, silu
        if x.device.type == "meta":
            return _by_torch(normed, kernel, level)
        return winograd.convolved(normed, kernel, level, out=out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kernel, level, table = ctx.saved_tensors
        x, wanted, (groups, _, silu) = inputs[0], ctx.needs_input_grad[:8], ctx.options
        if torch.is_grad_enabled():  # somebody wants to differentiate once more
            again = _by_torch(group_norm.by_torch(*inputs, *ctx.options), kernel, level)
            return *group_norm.derivatives(again, (*inputs, kernel, level), wanted, gradient), None, None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_level = gradient.sum((0, 2, 3)) if wanted[7] else None
        of_x = torch.empty_like(x) if any(wanted[:6]) else None
        of_kernel = None
        if wanted[6]:
            of_kernel = winograd.weight_gradient(gradient, group_norm.normalized_again(x, table, groups, silu))
        of_inputs: tuple[Tensor | None, ...] = (None,) * 6
        if of_x is not None:
            slope = winograd.convolved(gradient, kernel, None, back=True)
            every = group_norm.pulled_back(slope, inputs, table, groups, silu, of_x)
            of_inputs = tuple(each if needed else None for each, needed in zip(every, wanted[:6], strict=True))
        return *of_inputs, of_kernel, of_level, None, None, None


def _by_torch(normed: Tensor, kernel: Tensor, level: Tensor | None) -> Tensor:
    return nn.functional.conv2d(normed, kernel, level, padding=1)
