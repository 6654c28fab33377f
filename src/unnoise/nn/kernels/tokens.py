"""The kernels of a transformer's tokens as functions with gradients, for bfloat16 on a CPU."""

from __future__ import annotations

from ctypes import CDLL, c_float, c_int, c_int64
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .library import followed, library, pointer


def fused(*tensors: Tensor) -> bool:
    """Whether the kernels can and should work on these tensors: bfloat16 on a CPU, a compiler at hand, and nobody follows."""
    return (
        all(x.device.type == "cpu" and x.dtype == torch.bfloat16 for x in tensors)
        and not followed()
        and library() is not None
    )


class GELU(torch.autograd.Function):
    """x · sigmoid(2 √(2/π) (x + 0.044715 x³)) of x of any shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Shape of x."""
        x = x.contiguous()
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        _kernels().gelu(pointer(x), pointer(out), c_int64(x.numel()), _threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Shape of x."""
        (x,) = ctx.saved_tensors
        gradient, out = gradient.contiguous(), torch.empty_like(x)
        _kernels().gelu_backward(pointer(gradient), pointer(x), pointer(out), c_int64(x.numel()), _threads())
        return out


def softmax(scores: Tensor) -> Tensor:
    """The softmax over the last dimension; where no gradient is asked for, in place, for scores that are contiguous."""
    if torch.is_grad_enabled() or not fused(scores):
        return scores.softmax(dim=-1)  # torch takes that of bfloat16 in float32
    width = scores.shape[-1]
    _kernels().softmax(pointer(scores), c_int64(scores.numel() // width), c_int64(width), _threads())
    return scores


class ModulatedNorm(torch.autograd.Function):
    """LayerNorm(x) · (1 + scale) + shift for x of shape (B, tokens, width) and the others of shape (B, width)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, epsilon: float) -> Tensor:
        """Shape of x."""
        x, shift, scale = x.contiguous(), _rows(shift), _rows(scale)
        samples, tokens, width = x.shape
        out, statistics = torch.empty_like(x), torch.empty(samples, tokens, 2)
        ctx.save_for_backward(x, scale, statistics)
        _kernels().modulated_norm(
            pointer(x), pointer(shift), pointer(scale), c_int64(shift.stride(0)), c_int64(scale.stride(0)), pointer(out),
            pointer(statistics), c_int64(samples), c_int64(tokens), c_int64(width), c_float(epsilon), _threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Those of x, shift and scale."""
        x, scale, statistics = ctx.saved_tensors
        samples, tokens, width = x.shape
        gradient, out, parts = gradient.contiguous(), torch.empty_like(x), _parts(samples, tokens)
        shifts, scales = torch.empty(2, samples, parts, width)
        _kernels().modulated_norm_backward(
            pointer(gradient), pointer(x), pointer(scale), c_int64(scale.stride(0)), pointer(statistics), pointer(out),
            pointer(shifts), pointer(scales), c_int64(samples), c_int64(tokens), c_int64(width), c_int64(parts), _threads(),
        )  # fmt: skip
        return out, shifts.sum(1).to(x.dtype), scales.sum(1).to(x.dtype), None


class Gated(torch.autograd.Function):
    """x + gate · h for x and h of shape (B, tokens, width) and a gate of shape (B, width)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, h: Tensor) -> Tensor:
        """Shape of x."""
        gate, h = _rows(gate), h.contiguous()
        ctx.save_for_backward(gate, h)
        return torch.addcmul(x, gate[:, None], h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of x, gate and h."""
        gate, h = ctx.saved_tensors
        samples, tokens, width = h.shape
        gradient, out, parts = gradient.contiguous(), torch.empty_like(h), _parts(samples, tokens)
        gates = torch.empty(samples, parts, width)
        _kernels().gated_backward(
            pointer(gradient), pointer(gate), c_int64(gate.stride(0)), pointer(h), pointer(out), pointer(gates),
            c_int64(samples), c_int64(tokens), c_int64(width), c_int64(parts), _threads(),
        )  # fmt: skip
        return gradient, gates.sum(1).to(h.dtype), out


def _kernels() -> CDLL:
    found = library()
    assert found is not None
    return found


def _threads() -> c_int:
    return c_int(torch.get_num_threads())


def _rows(x: Tensor) -> Tensor:
    """A matrix whose rows are contiguous, wherever they begin."""
    return x if x.stride(1) == 1 else x.contiguous()


def _parts(samples: int, tokens: int) -> int:
    """Among how many the tokens of a sample are shared out, so that all threads have work."""
    return min(tokens, -(-torch.get_num_threads() // samples))
