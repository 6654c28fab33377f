"""Derivatives written out, for networks so small that recording a graph costs as much as the arithmetic.

Such a network gives its `ByHand` (see `Network.by_hand`): a way forward that keeps what the way back needs, and a way back that
adds the gradient of every weight where it is wanted. Neither records anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .embedding import ConditionEmbedding, frequencies, waves
from .products import add_outer, affine, times


def as_built(network: nn.Module, gradients: Mapping[str, Tensor], *kinds: type[nn.Module]) -> bool:
    """Whether a network is still what its written derivative was written for.

    It is not if parts were replaced, adapters or hooks hang on it, it was compiled or sharded, computes in coarser numbers than
    its gradients have, or not all of its weights are trained.

    Args:
        network: Whose derivative is wanted.
        gradients: Where the gradient of each trained weight is wanted, by name.
        kinds: The classes of the modules that the derivative knows; subclasses may compute something else.
    """
    weights = dict(network.named_parameters())
    return (
        all(type(module) in kinds and not hooked(module) for module in network.modules())
        and weights.keys() == gradients.keys()
        and all(
            type(w.data) is Tensor and w.shape == gradients[n].shape and w.dtype == gradients[n].dtype
            for n, w in weights.items()
        )
    )


def hooked(module: nn.Module) -> bool:
    """Whether something else than its own way forward happens where a module is called."""
    hooks = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
        module._compiled_call_impl, "forward" in vars(module),
    )  # fmt: skip
    return any(hooks)


class Linear:
    """A linear layer, there and back.

    Args:
        layer: Its weights are looked at where they stand.
        gradients: By the names of weights.
        name: Of the layer.
    """

    def __init__(self, layer: nn.Linear, gradients: Mapping[str, Tensor], name: str) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_gradient, self.bias_gradient = gradients[f"{name}.weight"], gradients[f"{name}.bias"]

    def __call__(self, x: Tensor) -> Tensor:
        """Shape (B, out) for x of shape (B, in)."""
        return affine(x, self.weight, self.bias)

    def learn(self, slope: Tensor, x: Tensor) -> None:
        """Adds the gradients of the weights, for the slope of the output, shape (B, out), where the input was x."""
        add_outer(self.weight_gradient, slope, x)
        self.bias_gradient.add_(slope.sum(0))

    def back(self, slope: Tensor) -> Tensor:
        """The slope of the input, shape (B, in)."""
        return times(slope, self.weight)


class Embedding:
    """A `ConditionEmbedding`, there and back.

    Args:
        embedding: Its weights are looked at where they stand.
        gradients: By the names of weights.
        name: Of the embedding.
    """

    def __init__(self, embedding: ConditionEmbedding, gradients: Mapping[str, Tensor], name: str) -> None:
        self.frequencies = frequencies(embedding.frequencies, embedding.enter.weight.device)
        self.enter = Linear(embedding.enter, gradients, f"{name}.enter")
        self.leave = Linear(embedding.leave, gradients, f"{name}.leave")
        self.table = None if embedding.label is None else embedding.label.weight
        self.table_gradient = gradients.get(f"{name}.label.weight")

    def __call__(self, noise_level: Tensor, labels: Tensor) -> Tensor:
        """See `ConditionEmbedding.forward`."""
        self.waves = waves(noise_level, self.frequencies).to(self.enter.weight.dtype)
        self.entered = self.enter(self.waves)
        self.inner = nn.functional.silu(self.entered)
        self.left, self.labels = self.leave(self.inner), labels
        if self.table is not None:
            self.left += self.table[labels]
        return nn.functional.silu(self.left)

    def learn(self, slope: Tensor) -> None:
        """Adds the gradients of the weights, for the slope of the result."""
        slope = silu_back(slope, self.left)
        if self.table_gradient is not None:
            self.table_gradient.index_add_(0, self.labels, slope)
        self.leave.learn(slope, self.inner)
        self.enter.learn(silu_back(self.leave.back(slope), self.entered), self.waves)


def leaky_relu_back(slope: Tensor, out: Tensor, negative: float) -> Tensor:
    """The slope of a LeakyReLU's input, where `out` came out of it."""
    return torch.ops.aten.leaky_relu_backward(slope, out, negative, True)


def silu_back(slope: Tensor, x: Tensor) -> Tensor:
    """The slope of a SiLU's input x."""
    return torch.ops.aten.silu_backward(slope, x)


def normalized(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """A layer normalisation without weights, with the mean and the reciprocal deviation of each row of x, shape (B, width)."""
    return torch.native_layer_norm(x, x.shape[1:], None, None, eps)


def normalized_back(slope: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """The slope of the input x of `normalized`."""
    wanted = [True, False, False]
    return torch.ops.aten.native_layer_norm_backward(slope, x, x.shape[1:], mean, rstd, None, None, wanted)[0]
