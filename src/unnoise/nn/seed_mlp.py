"""The small network of textbooks: a point beside the embedding of its noise level, through two hidden layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..options import Checked, option
from .base import ByHand, Condition, Network, networks
from .by_hand import Linear, as_built, leaky_relu_back
from .embedding import check_even, frequencies, sinusoidal, waves

SPREAD = 0.01
"""Standard deviation of every weight at the start; biases are zero."""

SLOPE = 0.01
"""The slope of LeakyReLU below zero."""


@dataclass(frozen=True)
class SeedMLPConfig(Checked):
    """The options of the textbook network."""

    hidden: int = option(256, help="units of each of the two hidden layers", low=1)
    time_dim: int = option(64, help="dimension of the sinusoidal embedding of the noise level, even", low=2)
    label_dim: int = option(16, help="dimension of the label embedding, where there are labels", low=1)


@networks.register("seed_mlp")
class SeedMLP(Network):
    """The textbook network: two hidden layers on the flattened sample, its noise level and its label, with LeakyReLU between.

    [x, embedding(noise level), embedding(label)] -> hidden -> hidden -> out.

    Works on the flattened sample, whatever its shape. On points of the plane it has 83,458 parameters, and 87,618 with
    three labels. For better results on the same data take the network "mlp".

    Raises:
        IncompatibleParts: The shapes hold no numbers.
        BadOption: `time_dim` is odd.
    """

    Config = SeedMLPConfig
    config: SeedMLPConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: SeedMLPConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        check_even(self.config.time_dim)
        hidden, label_dim = self.config.hidden, self.config.label_dim if num_classes else 0
        self.label = nn.Embedding(num_classes + 1, label_dim) if num_classes else None
        self.first = nn.Linear(math.prod(self.shape) + self.config.time_dim + label_dim, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, math.prod(self.out_shape))
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=SPREAD)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction, shape (B, *out_shape), for x of shape (B, *shape) and noise_level of shape (B,).

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: A tensor has another shape.
        """
        self.check(x, noise_level)
        labels = self.labels(cond, x)
        parts = [x.flatten(1), sinusoidal(noise_level, self.config.time_dim).to(x.dtype)]
        if self.label is not None:
            parts.append(self.label(labels))
        h = nn.functional.leaky_relu(self.first(torch.cat(parts, dim=1)), SLOPE)  # (B, hidden)
        h = nn.functional.leaky_relu(self.second(h), SLOPE)
        out: Tensor = self.last(h)
        return out.reshape(len(x), *self.out_shape)  # (B, *out_shape)

    def by_hand(self, gradients: Mapping[str, Tensor]) -> ByHand | None:
        """See `Network.by_hand`."""
        known = as_built(self, gradients, SeedMLP, nn.Linear, nn.Embedding)
        return SeedMLPByHand(self, gradients) if known else None


class SeedMLPByHand(ByHand):
    """The derivative of a `SeedMLP`.

    Args:
        network: As it was built.
        gradients: Where the gradient of each weight is added, by its name.
    """

    def __init__(self, network: SeedMLP, gradients: Mapping[str, Tensor]) -> None:
        self.network = network
        self.frequencies = frequencies(network.config.time_dim, network.first.weight.device)
        self.first, self.second, self.last = (
            Linear(getattr(network, name), gradients, name) for name in ("first", "second", "last")
        )
        self.table = None if network.label is None else network.label.weight
        self.table_gradient = gradients.get("label.weight")

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """See `ByHand.forward`."""
        self.network.check(x, noise_level)
        self.labels = self.network.labels(cond, x)
        parts = [x.flatten(1), waves(noise_level, self.frequencies).to(x.dtype)]
        if self.table is not None:
            parts.append(self.table[self.labels])
        self.inputs = torch.cat(parts, dim=1)
        self.h_1 = nn.functional.leaky_relu_(self.first(self.inputs), SLOPE)  # (B, hidden)
        self.h_2 = nn.functional.leaky_relu_(self.second(self.h_1), SLOPE)
        return self.last(self.h_2).reshape(len(x), *self.network.out_shape)

    def back(self, slope: Tensor) -> None:
        """See `ByHand.back`."""
        slope = slope.flatten(1)
        self.last.learn(slope, self.h_2)
        slope = leaky_relu_back(self.last.back(slope), self.h_2, SLOPE)
        self.second.learn(slope, self.h_1)
        slope = leaky_relu_back(self.second.back(slope), self.h_1, SLOPE)
        self.first.learn(slope, self.inputs)
        if self.table_gradient is not None:
            of_labels = slope.mm(self.first.weight[:, -self.table_gradient.shape[1] :])  # (B, label_dim)
            self.table_gradient.index_add_(0, self.labels, of_labels)
