r"""Low-rank adapters: two small matrices beside a frozen layer, which learn what the layer should have been.

.. math:: W' = W + \frac{\alpha}{r} U D, \qquad D \in R^{r \times n}, U \in R^{m \times r}

U is zero at the start, so that nothing changes until something is learned. For convolutions D is one of the same kernel with r
channels out, and U a convolution of kernel 1: the same formula with the kernel's places beside the channels that enter.

A layer keeps its name and its weights: adapters stand below it, as `layer.lora.0`, and a forward hook adds what they say.

References:
    LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021), Section 4.1, https://arxiv.org/abs/2106.09685
    Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation (Yeh et al., 2023), Section 3.1.1,
        https://arxiv.org/abs/2309.14859
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import BadOption, ShapeError
from ..options import Checked, option
from .convolution import CONVOLUTIONS
from .dropout import Dropout
from .patterns import Layer, layer_groups, layers_of, matching, split_patterns

CHILD = "lora"
"""Below a layer, where its adapters stand."""


@dataclass(frozen=True)
class LoRASettings(Checked):
    """Which layers get low-rank adapters, and of what kind.

    Raises:
        BadOption: `alpha` is not a positive number.
    """

    rank: int = option(8, help="rank of what is learned for each layer", low=1, high=65_536)
    alpha: float | Literal["rank"] = option("rank", help="what is learned counts alpha / rank times; rank for once")
    dropout: float = option(0.0, help="share of a layer's input that its adapter does not see", low=0.0, high=0.99)
    layers: tuple[str, ...] | str = option(
        ("all",), help="patterns such as middle.* or *.project_in; or all, linear, conv, attention"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha != "rank" and not 0 < self.alpha < float("inf"):
            raise BadOption(f"alpha: expected a positive number or rank, got {self.alpha}")
        object.__setattr__(self, "layers", split_patterns(self.layers))
        if not self.layers:
            raise BadOption("layers: expected at least one pattern, such as all, got none")

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by: alpha / rank."""
        return 1.0 if self.alpha == "rank" else self.alpha / self.rank


class Factors(NamedTuple):
    """What a layer's adapter has learned.

    Args:
        down: Shape (rank · groups, in / groups, *kernel), or (rank, in) for a linear layer.
        up: Shape (out, rank, 1, ...), or (out, rank).
        scale: What their product is multiplied by.
    """

    down: Tensor
    up: Tensor
    scale: float

    def delta(self) -> Tensor:
        """scale · up · down in float64, of the shape of the layer's weight."""
        rank = self.up.shape[1]
        left = self.up.double().flatten(1).unflatten(0, (len(self.down) // rank, -1))  # (groups, out / groups, rank)
        right = self.down.double().flatten(1).unflatten(0, (-1, rank))  # (groups, rank, in / groups · kernel)
        return self.scale * (left @ right).reshape(len(self.up), *self.down.shape[1:])

    def fits(self, weight: Tensor) -> bool:
        """Whether they are those of a layer with such a weight."""
        rank = self.up.shape[1] if self.up.ndim >= 2 else 0
        return (
            rank > 0
            and self.down.shape[1:] == weight.shape[1:]
            and self.up.shape == (len(weight), rank, *[1] * (weight.ndim - 2))
            and len(self.down) % rank == 0
            and len(weight) % (len(self.down) // rank) == 0
        )


class LowRank(nn.Module):
    """What is added to the output of one layer: strength · scale · up(down(dropout(x))), zero at the start.

    Args:
        layer: The layer beside which it stands.
        rank: Channels between down and up, for each group of a convolution.
        scale: alpha / rank.
        dropout: Share of the input that is dropped while training, in [0, 1).
    """

    def __init__(self, layer: Layer, rank: int, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale, self.strength, self.merged = scale, 1.0, False
        self.dropout = Dropout(dropout)
        self.down: Layer
        self.up: Layer
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            kind: Any = CONVOLUTIONS[layer.weight.ndim - 2]
            groups = layer.groups
            self.down = kind(
                layer.in_channels, rank * groups, layer.kernel_size, layer.stride, layer.padding, layer.dilation, groups,
                bias=False, padding_mode=layer.padding_mode,
            )  # fmt: skip
            self.up = kind(rank * groups, layer.out_channels, 1, groups=groups, bias=False)
        nn.init.zeros_(self.up.weight)
        self.to(device=layer.weight.device, dtype=layer.weight.dtype)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """What is added, in the shape of the layer's output, for its input x."""
        return (self.strength * self.scale) * self.up(self.down(self.dropout(x)))

    def factors(self) -> Factors:
        """What was learned, apart from the strength."""
        return Factors(self.down.weight.detach(), self.up.weight.detach(), self.scale)


def _add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    for adapter in adapters_of(layer):
        if not adapter.merged:
            output = output + adapter(inputs[0])
    return output


def adapters_of(layer: nn.Module) -> list[LowRank]:
    """The adapters of a layer, the first first."""
    return [cast(LowRank, each) for each in getattr(layer, CHILD, ())]


def base_layers(network: nn.Module) -> dict[str, Layer]:
    """The layers of a network that are not parts of adapters, by name."""
    return {name: layer for name, layer in layers_of(network).items() if f".{CHILD}." not in f".{name}"}


def match_layers(network: nn.Module, patterns: tuple[str, ...] | str) -> list[str]:
    """The names of the layers that patterns mean, in the order of the network; see `matching`.

    Raises:
        BadOption: A pattern means nothing.
    """
    layers = base_layers(network)
    groups = {group: [n for n in members if n in layers] for group, members in layer_groups(network).items()}
    return matching(split_patterns(patterns), list(layers), "linear layer or convolution", groups)


def attach(network: nn.Module, settings: LoRASettings, seed: int = 0) -> list[str]:
    """Puts fresh adapters beside the layers that the settings name; what the network says stays the same, bit for bit.

    Nothing is frozen by this: see `freeze`.

    Args:
        network: Changed in place.
        settings: Which layers, and what rank.
        seed: Of the first values of `down`.

    Returns:
        The names of the layers.

    Raises:
        BadOption: A pattern means no layer.
    """
    names = match_layers(network, settings.layers)
    layers = base_layers(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            _put(layers[name], LowRank(layers[name], settings.rank, settings.scale, settings.dropout))
    return names


def attach_factors(network: nn.Module, factors: Mapping[str, Factors], strength: float = 1.0) -> None:
    """Puts adapters that have learned something beside their layers; several may stand beside one.

    Args:
        network: Changed in place.
        factors: By the name of the layer.
        strength: What they are multiplied by; 0 is none of it, 1 all.

    Raises:
        ShapeError: There is no such layer, or it has another shape.
    """
    layers = base_layers(network)
    check_factors(factors, {f"{name}.weight": layer.weight for name, layer in layers.items()})
    for name, each in factors.items():
        adapter = LowRank(layers[name], each.up.shape[1], each.scale)
        adapter.strength = strength
        with torch.no_grad():
            adapter.down.weight.copy_(each.down)
            adapter.up.weight.copy_(each.up)
        _put(layers[name], adapter)


def check_factors(factors: Mapping[str, Factors], weights: Mapping[str, Tensor]) -> None:
    """Checks that adapters fit the layers of a network.

    Raises:
        ShapeError: There is no such layer, or it has another shape; the first is named.
    """
    for name, each in factors.items():
        weight = weights.get(f"{name}.weight")
        if weight is None:
            raise ShapeError(f"it adapts a layer {name}, which the network does not have")
        if not each.fits(weight):
            shapes = f"{tuple(each.down.shape)} and {tuple(each.up.shape)}"
            raise ShapeError(f"it adapts {name}.weight by {shapes}, which the network has as {tuple(weight.shape)}")


def _put(layer: Layer, adapter: LowRank) -> None:
    if not hasattr(layer, CHILD):
        layer.add_module(CHILD, nn.ModuleList())
        layer.register_forward_hook(_add)
    cast(nn.ModuleList, getattr(layer, CHILD)).append(adapter)


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Adds all that adapters have learned to the weights of their layers, after which they cost nothing.

    What the network says stays the same but for the rounding of its weights.
    """
    _shift(network, 1.0, merged=False)


@torch.no_grad()
def unmerge(network: nn.Module) -> None:
    """Takes what adapters have learned out of the weights again.

    Every weight comes back to within one rounding of the larger of itself and its merged value: 2^-24 of that in float32.
    """
    _shift(network, -1.0, merged=True)


def _shift(network: nn.Module, sign: float, merged: bool) -> None:
    for layer in base_layers(network).values():
        turned = [adapter for adapter in adapters_of(layer) if adapter.merged == merged]
        if turned:
            change = sum(adapter.strength * adapter.factors().delta() for adapter in turned)
            layer.weight.copy_(layer.weight.double() + sign * change)
        for adapter in turned:
            adapter.merged = not merged


def freeze(network: nn.Module, train: Sequence[str] = (), frozen: Sequence[str] = ()) -> list[str]:
    """Leaves a gradient to some weights only.

    Where there are adapters they learn, and of the other weights those that `train` names; where there are none, the weights
    that `train` names, or all if it names none. Those that `frozen` names never learn.

    Args:
        network: Changed in place.
        train: Patterns over the names of weights or modules.
        frozen: The same.

    Returns:
        The names of the weights that learn.

    Raises:
        BadOption: A pattern means no weight, or nothing is left to learn.
    """
    parameters = dict(network.named_parameters())
    adapters = [name for name in parameters if f".{CHILD}." in f".{name}"]
    own = [name for name in parameters if name not in set(adapters)]
    learn = set(matching(train, own, "weight")) if train or adapters else set(own)
    learn -= set(matching(frozen, own, "weight"))
    learn |= set(adapters)
    if not learn:
        raise BadOption("every weight is frozen: leave something to learn")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in learn)
    return [name for name in parameters if name in learn]
