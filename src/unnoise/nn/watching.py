"""What cross-attention looks at: how much each place of a picture reads each token of what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import IncompatibleParts, ShapeError
from .attention import CrossAttention, normed
from .conditions import Context


class AttentionWatch:
    """A context in which every look of a network's cross-attention is added to one picture for each token.

    The weights of all heads, layers and calls count alike. They are worked out a second time, beside the network, which computes
    as ever.

    Args:
        network: With cross-attention.
        size: Of a sample: its places along each axis.
        samples: How many of the first rows of each batch are watched; the rest may be those of guidance.

    References:
        What the DAAM: Interpreting Stable Diffusion Using Cross Attention (Tang et al., 2023), Section 3,
        https://arxiv.org/abs/2210.04885

    Raises:
        IncompatibleParts: The network has no cross-attention.
    """

    def __init__(self, network: nn.Module, size: Sequence[int], samples: int = 1) -> None:
        self.size, self.samples = tuple(size), samples
        self.layers = [module for module in network.modules() if isinstance(module, CrossAttention)]
        if not self.layers:
            kind = getattr(network, "registered_name", type(network).__name__)
            raise IncompatibleParts(
                f"network {kind!r} has no cross-attention to look at: that is what latent_unet, and dit with a context, have"
            )
        self._total: Tensor | None = None
        self._looks = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles = [layer.register_forward_pre_hook(self._look) for layer in self.layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _look(self, layer: CrossAttention, entered: tuple[Tensor, Context]) -> None:
        weights = looks(layer, entered[0][: self.samples], _first(entered[1], self.samples))  # (B, places, tokens)
        grid = _grid(self.size, weights.shape[1])
        pictures = weights.mT.reshape(len(weights), -1, *grid)
        if grid != self.size:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
            pictures = nn.functional.interpolate(pictures, self.size, mode=mode)
        self._total = pictures if self._total is None else self._total + pictures
        self._looks += 1

    @property
    def maps(self) -> Tensor:
        """The mean weight of each token at each place, shape (B, tokens, *size), float32; over the tokens they sum to one.

        Raises:
            ShapeError: The network was not asked while it was watched.
        """
        if self._total is None:
            raise ShapeError("nothing was watched: ask the network inside of `with AttentionWatch(...)`")
        return self._total / self._looks


def looks(layer: CrossAttention, x: Tensor, context: Context) -> Tensor:
    """The weights with which places read tokens, the mean over the heads.

    Args:
        layer: That looks.
        x: Shape (B, places, width).
        context: Of B samples.

    Returns:
        Shape (B, places, tokens), float32; zero where all tokens are hidden.
    """
    query = normed(layer.query_norm, layer.project_query(x).unflatten(2, (layer.heads, -1)))
    both = layer.look_up(context.tokens) if context.made is None else context.made[:, :, layer.columns]
    key = both.unflatten(2, (2, layer.heads, -1))[:, :, 0]
    scores = torch.einsum("bphc,bthc->bhpt", query.float(), key.float()) * query.shape[-1] ** -0.5
    if context.mask is not None:
        scores = scores.masked_fill(~context.mask[:, None, None], -math.inf)
    return scores.softmax(dim=-1).nan_to_num(0.0).mean(dim=1)


def _first(context: Context, samples: int) -> Context:
    return Context(*(None if each is None else each[:samples] for each in context))  # type: ignore[arg-type]


def _grid(size: tuple[int, ...], places: int) -> tuple[int, ...]:
    """The grid of so many places that a sample is looked at on: its size divided by a whole number, rounded up."""
    for by in range(1, max(size) + 1):
        grid = tuple(-(-each // by) for each in size)
        if math.prod(grid) == places:
            return grid
    raise ShapeError(f"{places} places are no grid of a sample of size {size}")
