"""The kernels of a transformer's tokens as functions with gradients, for float32 and bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_int64
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .library import followed, library, on_processor, passing_like, pointer


def fused(*tensors: Tensor) -> bool:
    """Whether the kernels can and should work on these tensors: of one kind on a CPU, a compiler at hand, and nobody follows."""
    kind = tensors[0].dtype
    return (
        kind in (torch.float32, torch.bfloat16)
        and all(on_processor(x) and x.dtype == kind for x in tensors)
        and not followed()
        and library() is not None
    )


def gelu_by_torch(x: Tensor) -> Tensor:
    """x · sigmoid(2 √(2/π) (x + 0.044715 x³)) of x of any shape."""
    return nn.functional.gelu(x, approximate="tanh")


def modulated_norm_by_torch(x: Tensor, shift: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """LayerNorm(x) · (1 + scale) + shift for x of shape (B, tokens, width) and the others of shape (B, width)."""
    normed = nn.functional.layer_norm(x, x.shape[-1:], eps=epsilon)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


def gated_by_torch(x: Tensor, gate: Tensor, h: Tensor) -> Tensor:
    """x + gate · h for x and h of shape (B, tokens, width) and a gate of shape (B, width)."""
    return torch.addcmul(x, gate[:, None], h)


def _to_differentiate(function: Callable[..., Tensor], gradient: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a function by torch's own operations, which can be differentiated once more."""
    some = [x if x.requires_grad else x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*some), some, gradient, create_graph=True)


class GELU(torch.autograd.Function):
    """See `gelu_by_torch`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Shape of x."""
        ctx.save_for_backward(x)
        x = x.contiguous()
        out = passing_like(x)
        _run("gelu", x, x, out, c_int64(x.numel()))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Shape of x."""
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _to_differentiate(gelu_by_torch, gradient, x)[0]
        gradient, x = gradient.contiguous(), x.contiguous()
        out = torch.empty_like(x)
        _run("gelu_backward", x, gradient, x, out, c_int64(x.numel()))
        return out


def softmax(scores: Tensor) -> Tensor:
    """The softmax over the last dimension; where no gradient is asked for, in place, for scores that are contiguous."""
    if torch.is_grad_enabled() or not fused(scores):
        return scores.softmax(dim=-1)  # torch takes that of bfloat16 in float32
    width = scores.shape[-1]
    _run("softmax", scores, scores, c_int64(scores.numel() // width), c_int64(width))
    return scores


class ModulatedNorm(torch.autograd.Function):
    """See `modulated_norm_by_torch`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, epsilon: float) -> Tensor:
        """Shape of x."""
        samples, tokens, width = x.shape
        statistics = torch.empty(samples, tokens, 2, device=x.device)
        ctx.save_for_backward(x, shift, scale, statistics)
        ctx.epsilon = epsilon
        x, shift, scale = x.contiguous(), _rows(shift), _rows(scale)
        out = passing_like(x)
        _run(
            "modulated_norm", x, x, shift, scale, c_int64(shift.stride(0)), c_int64(scale.stride(0)), out, statistics,
            c_int64(samples), c_int64(tokens), c_int64(width), c_float(epsilon),
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Those of x, shift and scale."""
        x, shift, scale, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():
            again = partial(modulated_norm_by_torch, epsilon=ctx.epsilon)
            return *_to_differentiate(again, gradient, x, shift, scale), None  # type: ignore[return-value]
        samples, tokens, width = x.shape
        gradient, x, scale, parts = gradient.contiguous(), x.contiguous(), _rows(scale), _parts(samples, tokens)
        out = torch.empty_like(x)
        shifts, scales = torch.empty(2, samples, parts, width, device=x.device)
        _run(
            "modulated_norm_backward", x, gradient, x, scale, c_int64(scale.stride(0)), statistics, out, shifts, scales,
            c_int64(samples), c_int64(tokens), c_int64(width), c_int64(parts),
        )  # fmt: skip
        return out, shifts.sum(1).to(x.dtype), scales.sum(1).to(x.dtype), None


class Gated(torch.autograd.Function):
    """See `gated_by_torch`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, h: Tensor) -> Tensor:
        """Shape of x."""
        ctx.save_for_backward(gate, h)
        return gated_by_torch(x, gate, h)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of x, gate and h."""
        gate, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradient, (gradient * h).sum(1), gradient * gate[:, None]
        samples, tokens, width = h.shape
        gradient, gate, h, parts = gradient.contiguous(), _rows(gate), h.contiguous(), _parts(samples, tokens)
        out = torch.empty_like(h)
        gates = torch.empty(samples, parts, width, device=h.device)
        _run(
            "gated_backward", h, gradient, gate, c_int64(gate.stride(0)), h, out, gates,
            c_int64(samples), c_int64(tokens), c_int64(width), c_int64(parts),
        )  # fmt: skip
        return gradient, gates.sum(1).to(h.dtype), out


def _run(name: str, x: Tensor, *arguments: Tensor | c_int64 | c_float) -> None:
    """Calls a function of tokens.cpp for numbers of the kind of x; what has no memory costs nothing."""
    if x.device.type == "meta":
        return
    given = (pointer(each) if isinstance(each, Tensor) else each for each in arguments)
    getattr(library(), name)(*given, c_int(x.dtype == torch.bfloat16), c_int(torch.get_num_threads()))


def _rows(x: Tensor) -> Tensor:
    """A matrix whose rows are contiguous, wherever they begin."""
    return x if x.stride(1) == 1 else x.contiguous()


def _parts(samples: int, tokens: int) -> int:
    """Among how many the tokens of a sample are shared out, so that all threads have work."""
    return min(tokens, -(-torch.get_num_threads() // samples))
