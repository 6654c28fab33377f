"""What a vector for each sample does to its tokens: scale, shift and gate them (adaLN)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .forgetting import forgetting
from .kernels.tokens import (
    GELU,
    Gated,
    ModulatedNorm,
    fused,
    gated_by_torch,
    gelu_by_torch,
    modulated_norm_by_torch,
)

EPSILON = 1e-6
"""What is added to a variance before its root is taken."""


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift, the statistics in float32.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748

    Args:
        x: Shape (B, tokens, width).
        shift: Shape (B, width).
        scale: Shape (B, width).

    Returns:
        Shape of x.
    """
    if fused(x, shift, scale):
        out: Tensor = ModulatedNorm.apply(x, shift, scale, EPSILON)  # type: ignore[no-untyped-call]
        return out
    return modulated_norm_by_torch(x, shift, scale, EPSILON)


def gated(x: Tensor, gate: Tensor, h: Tensor) -> Tensor:
    """x + gate * h for tokens of shape (B, tokens, width) and a gate of shape (B, width)."""
    if fused(x, gate, h):
        out: Tensor = Gated.apply(x, gate, h)  # type: ignore[no-untyped-call]
        return out
    return gated_by_torch(x, gate, h)


def gelu(x: Tensor) -> Tensor:
    """The Gaussian error linear unit by its hyperbolic tangent, of x of any shape.

    References:
        Gaussian Error Linear Units (Hendrycks and Gimpel, 2016), Section 2, https://arxiv.org/abs/1606.08415
    """
    if fused(x):
        out: Tensor = GELU.apply(x)  # type: ignore[no-untyped-call]
        return out
    return gelu_by_torch(x)


def geglu(x: Tensor) -> Tensor:
    """h * GELU(g) of x = [h, g], of shape (..., 2 width), by the error function: shape (..., width).

    References:
        GLU Variants Improve Transformer (Shazeer, 2020), Equation 5, https://arxiv.org/abs/2002.05202
    """
    h, gate = x.chunk(2, dim=-1)
    return forgetting(partial(torch.mul, h), nn.functional.gelu, gate)
