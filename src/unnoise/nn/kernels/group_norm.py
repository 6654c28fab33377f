"""Group normalisation and what usually stands around it: by the kernel where it can work, by torch elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64
from typing import Any

import torch
from torch import Tensor, nn

from .library import followed, library, on_processor, passing_like, pointer

_TABLE, _SUMS = 5, 5  # as in group_norm.cpp
_INPUTS = 6

Inputs = Sequence[Tensor | None]
"""x, weight, bias, added, scale and shift."""


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    added: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    epsilon: float,
    silu: bool,
) -> Tensor:
    """SiLU(GroupNorm(x + added) (1 + scale) + shift); see `nn.group_norm.GroupNorm`.

    Args:
        x: Shape (B, channels, *size).
        weight: Shape (channels,).
        bias: Shape (channels,).
        added: Shape (B, channels), or None.
        scale: Shape (B, channels), or None.
        shift: Shape (B, channels), or None.
        groups: A divisor of the channels.
        epsilon: What is added to a variance before its root is taken.
        silu: Whether SiLU follows.

    Returns:
        Shape and dtype of x.
    """
    if fits(x):
        out: Tensor = _Fused.apply(x, weight, bias, added, scale, shift, groups, epsilon, silu)  # type: ignore[no-untyped-call]
        return out
    return by_torch(x, weight, bias, added, scale, shift, groups, epsilon, silu)


def fits(x: Tensor) -> bool:
    """Whether the kernel can work on a batch: float32 or bfloat16 on a CPU, channels innermost in memory, and nobody traces.

    A tensor without memory that stands for one on a CPU counts as one in `best_layout`: what a step will take is asked for with
    such, and the convolutions on them forget the order.
    """
    if followed():
        return False
    laid_out = x.ndim > 3 if x.device.type == "meta" else x.ndim > 2 and x.movedim(1, -1).is_contiguous()
    return (
        on_processor(x)
        and x.dtype in (torch.float32, torch.bfloat16)
        and laid_out
        and x.numel() > 0
        and library() is not None
    )


def by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    added: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    epsilon: float,
    silu: bool,
) -> Tensor:
    """`group_norm` by operations that everybody knows."""
    added, scale, shift = (
        None if each is None else each.to(x.dtype)[(..., *[None] * (x.ndim - 2))] for each in (added, scale, shift)
    )
    if x.device.type != "cpu":  # elsewhere torch wants data and weights to be of one kind
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    # With channels innermost torch's own is slow on a CPU, and forgets the order of its data on a GPU.
    plain = (x if added is None else x + added).contiguous()
    out = nn.functional.group_norm(plain, groups, weight, bias, epsilon)
    if scale is not None:
        out = out * (1 + scale) if shift is None else torch.addcmul(shift, out, 1 + scale)
    elif shift is not None:
        out = out + shift
    out = nn.functional.silu(out) if silu else out
    innermost = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    if x.ndim in (4, 5) and not _transformed() and not x.is_contiguous() and x.is_contiguous(memory_format=innermost):
        return out.contiguous(memory_format=innermost)
    return out


def _transformed() -> bool:
    """Whether torch.func maps or differentiates what is being computed."""
    return bool(torch._C._are_functorch_transforms_active())


class _Fused(torch.autograd.Function):
    """`group_norm` of a batch that `fits`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        added: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        groups: int,
        epsilon: float,
        silu: bool,
    ) -> Tensor:
        inputs = (x, weight, bias, added, scale, shift)
        out, table = normalized(inputs, groups, epsilon, silu)
        ctx.save_for_backward(*inputs, table)
        ctx.options = groups, epsilon, silu
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, table = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:_INPUTS]
        if torch.is_grad_enabled():  # somebody wants to differentiate once more
            again = by_torch(*inputs, *ctx.options)
            return *derivatives(again, inputs, wanted, gradient), None, None, None
        groups, _, silu = ctx.options
        every = pulled_back(gradient, inputs, table, groups, silu)
        return *(each if needed else None for each, needed in zip(every, wanted, strict=True)), None, None, None


def normalized(inputs: Inputs, groups: int, epsilon: float, silu: bool) -> tuple[Tensor, Tensor]:
    """What `group_norm` gives of a batch that `fits`, and the table that its way back needs.

    Args:
        inputs: x, weight, bias, added, scale and shift, as in `group_norm`.
        groups: As in `group_norm`.
        epsilon: The same.
        silu: The same.
    """
    x, *vectors = inputs
    assert x is not None
    table = x.new_empty(len(x), _TABLE, x.shape[1], dtype=torch.float32)
    out = passing_like(x) if x.device.type != "meta" else x.new_empty(x.movedim(1, -1).shape).movedim(-1, 1)
    _run("group_norm", x, (x, *map(_plain, vectors), out, table), groups, (c_float(epsilon),), silu)
    return out, table


def normalized_again(x: Tensor, table: Tensor, groups: int, silu: bool) -> Tensor:
    """What `normalized` gave of x, where it gave this table."""
    out = passing_like(x)
    _run("group_norm_again", x, (x, out, table), groups, (), silu)
    return out


def pulled_back(
    gradient: Tensor, inputs: Inputs, table: Tensor, groups: int, silu: bool, out: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The gradients of all inputs of `normalized`, for that of its results; some have more digits than what they are of."""
    x, weight, bias, _, scale, _ = inputs
    assert x is not None
    if gradient.dtype != x.dtype or gradient.stride() != x.stride():
        gradient = torch.empty_like(x).copy_(gradient)
    out = torch.empty_like(x) if out is None else out
    sums = x.new_empty(len(x), _SUMS, x.shape[1], dtype=torch.float32)
    total = x.new_empty(2, x.shape[1], dtype=torch.float32)
    vectors = map(_plain, (weight, bias, scale))
    _run("group_norm_backward", x, (gradient, x, *vectors, table, out, sums, total), groups, (), silu)
    _, _, of_scale, of_shift, of_added = sums.unbind(1)
    return out, *total.unbind(), of_added, of_scale, of_shift


def derivatives(result: Tensor, inputs: Inputs, wanted: Sequence[bool], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of those inputs that are wanted, such as can be differentiated once more."""
    asked = [each for each, needed in zip(inputs, wanted, strict=True) if needed and each is not None]
    found = iter(torch.autograd.grad(result, asked, gradient, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)


def _plain(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float().contiguous()


def _run(
    name: str, x: Tensor, tensors: tuple[Tensor | None, ...], groups: int, more: tuple[c_float, ...], silu: bool
) -> None:
    """Calls a function of group_norm.cpp; a batch without memory costs nothing."""
    if x.device.type == "meta":
        return
    samples, channels = x.shape[:2]
    sizes = map(c_int64, (samples, x.numel() // (samples * channels), channels, groups))
    kinds = map(c_int, (silu, x.dtype == torch.bfloat16, torch.get_num_threads()))
    getattr(library(), name)(*map(pointer, tensors), *sizes, *more, *kinds)
