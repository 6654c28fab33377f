"""The linear layer of the large networks, whose products come from the faster library that torch has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .packing import Packable
from .products import affine, better_by_onednn, outer, times


class Linear(Packable, nn.Linear):
    """`nn.Linear` in everything but speed: about twice as fast in float32 where MKL does not use the whole processor."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., out) for x of shape (..., in)."""
        if self.packed is not None and self.takes_blocks(x):
            return self.packed.multiply(x, self)
        return affine_rows(x, self.weight, self.bias)


def affine_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b by the faster library, shape (..., out), for x of shape (..., in) and W of shape (out, in)."""
    if bias is None or torch.compiler.is_compiling() or not better_by_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    rows: Tensor = _Affine.apply(x.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    return rows.unflatten(0, x.shape[:-1])


class _Affine(torch.autograd.Function):
    """x W^T + b for x of shape (B, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        return affine(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        # Where this is differentiated again only torch's own operations do.
        by_weight, by_rows = (torch.mm, lambda g, x: g.t() @ x) if torch.is_grad_enabled() else (times, outer)
        wanted = ctx.needs_input_grad
        return (
            by_weight(gradient, weight) if wanted[0] else None,
            by_rows(gradient, x) if wanted[1] else None,
            gradient.sum(0) if wanted[2] else None,
        )

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, weight_dot: Tensor | None, bias_dot: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        total = x.new_zeros(len(x), len(weight)) if bias_dot is None else bias_dot.expand(len(x), -1)
        if x_dot is not None:
            total = total + x_dot @ weight.t()
        if weight_dot is not None:
            total = total + x @ weight_dot.t()
        return total
