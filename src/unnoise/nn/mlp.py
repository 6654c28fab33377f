"""A residual network without convolutions, for points and small arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..options import Checked, option
from .base import ByHand, Condition, Network, networks
from .by_hand import Embedding, Linear, as_built, normalized, normalized_back, silu_back
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
        return torch.cat([x, angles.sin(), angles.cos()], dim=1).to(x.dtype)

    def by_hand(self, gradients: Mapping[str, Tensor]) -> ByHand | None:
        """See `Network.by_hand`."""
        parts = ConditionEmbedding, ResidualMLPBlock, nn.ModuleList, nn.LayerNorm, nn.Linear, nn.Embedding
        return MLPByHand(self, gradients) if as_built(self, gradients, MLP, *parts) else None


class BlockByHand:
    """A `ResidualMLPBlock`, there and back.

    Args:
        block: Its weights are looked at where they stand.
        gradients: By the names of weights.
        name: Of the block.
    """

    def __init__(self, block: ResidualMLPBlock, gradients: Mapping[str, Tensor], name: str) -> None:
        self.eps = block.norm.eps
        self.enter = Linear(block.enter, gradients, f"{name}.enter")
        self.leave = Linear(block.leave, gradients, f"{name}.leave")

    def __call__(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """See `ResidualMLPBlock.forward`."""
        self.h, self.factor = h, 1 + scale
        self.normal, self.mean, self.rstd = normalized(h, self.eps)
        self.steered = torch.addcmul(shift, self.normal, self.factor)
        self.entered = self.enter(self.steered)  # (B, hidden)
        self.inner = nn.functional.silu(self.entered)
        return self.leave(self.inner).add_(h)

    def back(self, slope: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The slope of h, shape (B, width), after the gradients of the weights were added.

        Args:
            slope: Of the result, shape (B, width).
            scale: The slope of the scale is written there, shape (B, width).
            shift: The slope of the shift is written there.
        """
        self.leave.learn(slope, self.inner)
        inner = silu_back(self.leave.back(slope), self.entered)
        self.enter.learn(inner, self.steered)
        steered = self.enter.back(inner)
        shift.copy_(steered)
        torch.mul(steered, self.normal, out=scale)
        return slope + normalized_back(steered * self.factor, self.h, self.mean, self.rstd)


class MLPByHand(ByHand):
    """The derivative of an `MLP`.

    Args:
        network: As it was built.
        gradients: Where the gradient of each weight is added, by its name.
    """

    def __init__(self, network: MLP, gradients: Mapping[str, Tensor]) -> None:
        self.network = network
        self.embedding = Embedding(network.embedding, gradients, "embedding")
        self.modulation, self.enter, self.leave = (
            Linear(getattr(network, name), gradients, name) for name in ("modulation", "enter", "leave")
        )
        blocks: list[ResidualMLPBlock] = list(network.blocks)  # type: ignore[arg-type]
        self.blocks = [BlockByHand(block, gradients, f"blocks.{i}") for i, block in enumerate(blocks)]

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """See `ByHand.forward`."""
        self.network.check(x, noise_level)
        self.told = self.embedding(noise_level, self.network.labels(cond, x))  # (B, embedding)
        steering = self.modulation(self.told).chunk(2 * len(self.blocks), dim=1)  # 2 depth of (B, width)
        self.features = self.network.features(x.flatten(1))
        h = self.enter(self.features)  # (B, width)
        for i, block in enumerate(self.blocks):
            h = block(h, steering[2 * i], steering[2 * i + 1])
        self.h = h
        return self.leave(h).reshape(len(x), *self.network.out_shape)

    def back(self, slope: Tensor) -> None:
        """See `ByHand.back`."""
        slope = slope.flatten(1)
        self.leave.learn(slope, self.h)
        slope = self.leave.back(slope)
        steering = slope.new_empty(len(slope), len(self.modulation.weight))  # the slopes of what `modulation` says
        parts = steering.chunk(2 * len(self.blocks), dim=1)
        for i, block in reversed(list(enumerate(self.blocks))):
            slope = block.back(slope, parts[2 * i], parts[2 * i + 1])
        self.enter.learn(slope, self.features)
        self.modulation.learn(steering, self.told)
        self.embedding.learn(self.modulation.back(steering))
