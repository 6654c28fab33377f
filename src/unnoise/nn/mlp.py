"""A residual network without convolutions, for points and small arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..options import Checked, option
from .base import Condition, Network, networks
from .embedding import ConditionEmbedding


@dataclass(frozen=True)
class MLPConfig(Checked):
    """The options of the residual MLP."""

    width: int = option(96, help="units of the residual stream", low=4)
    depth: int = option(3, help="residual blocks", low=1)
    expansion: float = option(1.0, help="units inside a block, as a multiple of the width", low=0.25)
    embedding: int = option(32, help="dimension of the embedding of noise level and label, even", low=2)
    fourier: int = option(3, help="octaves of waves beside every coordinate; 0 for none", low=0, high=16)


class ResidualMLPBlock(nn.Module):
    """h + Linear(SiLU(Linear(LayerNorm(h) * (1 + scale) + shift))), the identity at the start.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748

    Args:
        width: Units of the residual stream.
        hidden: Units inside.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.enter = nn.Linear(width, hidden)
        self.leave = nn.Linear(hidden, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Shape (B, width), as all three."""
        inner = self.enter(torch.addcmul(shift, self.norm(h), 1 + scale))  # (B, hidden)
        out: Tensor = h + self.leave(nn.functional.silu(inner))  # (B, width)
        return out


@networks.register("mlp")
class MLP(Network):
    r"""Residual blocks on the flattened sample, steered by the noise level and the label.

    Beside every coordinate :math:`x` stand :math:`\sin(2^k x), \cos(2^k x)` for k = 0 ... `fourier` - 1: without them a
    network is slow to learn structure much finer than the spread of the data, such as the arms of a thin spiral.
    Nothing is normalised before the last layer, which therefore sees how far out a point lies.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020),
            https://arxiv.org/abs/2006.10739

    Raises:
        IncompatibleParts: The shapes hold no numbers.
        BadOption: `embedding` is odd.
    """

    Config = MLPConfig
    config: MLPConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: MLPConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        width, depth, dim = self.config.width, self.config.depth, self.config.embedding
        self.embedding = ConditionEmbedding(dim, dim, num_classes)
        # One product gives the scales and shifts of all blocks: many small ones cost more than the arithmetic.
        self.modulation = nn.Linear(dim, 2 * depth * width)
        self.enter = nn.Linear(math.prod(self.shape) * (1 + 2 * self.config.fourier), width)
        hidden = max(1, round(width * self.config.expansion))
        self.blocks = nn.ModuleList(ResidualMLPBlock(width, hidden) for _ in range(depth))
        self.leave = nn.Linear(width, math.prod(self.out_shape))
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.octaves: Tensor
        self.register_buffer("octaves", 2.0 ** torch.arange(self.config.fourier), persistent=False)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction, shape (B, *out_shape), for x of shape (B, *shape) and noise_level of shape (B,).

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: A tensor has another shape.
        """
        self.check(x, noise_level)
        told = self.embedding(noise_level, self.labels(cond, x))  # (B, embedding)
        steering = self.modulation(told).chunk(2 * self.config.depth, dim=1)  # 2 depth of (B, width)
        h = self.enter(self.features(x.flatten(1)))  # (B, width)
        for i, block in enumerate(self.blocks):
            h = block(h, steering[2 * i], steering[2 * i + 1])
        out: Tensor = self.leave(h)
        return out.reshape(len(x), *self.out_shape)  # (B, *out_shape)

    def features(self, x: Tensor) -> Tensor:
        """The coordinates, shape (B, D), with their sines and cosines beside them: shape (B, D (1 + 2 fourier))."""
        if not self.config.fourier:
            return x
        angles = (x[:, :, None] * self.octaves).flatten(1)  # (B, D fourier)
        return torch.cat([x, angles.sin(), angles.cos()], dim=1)
