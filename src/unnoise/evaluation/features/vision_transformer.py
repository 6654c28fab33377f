"""The vision transformer that DINOv2 and CLIP share, as their published weights want it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import DataError


@dataclass(frozen=True)
class Architecture:
    """The sizes of a vision transformer.

    Args:
        width: Numbers a token.
        depth: Layers.
        heads: Heads of attention.
        hidden: Numbers inside the two layers that follow attention.
        patch: Side of a patch in pixels.
        positions: Side of the grid of patches that positions were learned for.
        eps: Added to variances.
        activation: "gelu"; "quick_gelu", x sigmoid(1.702 x); "swiglu", a gate beside the hidden numbers.
        like_clip: Normalised before the first layer, without a bias of patches or scales of layers; else as in DINOv2.
        biased: Whether queries, keys and values have a bias.
        projected: Numbers of the projection after the last layer; 0 for none.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    positions: int
    eps: float
    activation: Literal["gelu", "quick_gelu", "swiglu"]
    like_clip: bool
    biased: bool = True
    projected: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.patch, self.positions) < 1 or self.width % self.heads:
            raise DataError(f"a vision transformer cannot have {self.heads} heads, a width of {self.width} and {self}")


class Mlp(nn.Module):
    """Two layers, and between them an activation or a gate."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.activation = sizes.activation
        gated = sizes.activation == "swiglu"
        self.enter = nn.Linear(sizes.width, sizes.hidden * (2 if gated else 1))
        self.leave = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        x = self.enter(x)
        if self.activation == "swiglu":
            gate, x = x.chunk(2, dim=-1)
            return self.leave(functional.silu(gate) * x)
        return self.leave(x * torch.sigmoid(1.702 * x) if self.activation == "quick_gelu" else functional.gelu(x))


class Layer(nn.Module):
    """Attention, then two layers, each around a skip connection and after a normalisation."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm1 = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.query, self.key, self.value = (nn.Linear(sizes.width, sizes.width, bias=sizes.biased) for _ in range(3))
        self.out = nn.Linear(sizes.width, sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.mlp = Mlp(sizes)
        scales = not sizes.like_clip
        self.scale1 = nn.Parameter(torch.ones(sizes.width)) if scales else None
        self.scale2 = nn.Parameter(torch.ones(sizes.width)) if scales else None

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, tokens, width), as x."""
        h = self.norm1(x)
        query, key, value = (
            layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # each (B, heads, tokens, width / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        h = self.out(mixed)
        x = x + (h if self.scale1 is None else h * self.scale1)
        h = self.mlp(self.norm2(x))
        return x + (h if self.scale2 is None else h * self.scale2)


class VisionTransformer(nn.Module):
    """Patches and one token for the whole, which gathers what is said of the picture.

    References:
        An Image is Worth 16x16 Words (Dosovitskiy et al., 2021), Equations 1 to 4, https://arxiv.org/abs/2010.11929

    Args:
        sizes: See `Architecture`.
    """

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        self.dim = sizes.projected or sizes.width
        self.class_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.patches = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=not sizes.like_clip)
        self.positions = nn.Parameter(torch.zeros(1, sizes.positions**2 + 1, sizes.width))
        self.norm_in = nn.LayerNorm(sizes.width, eps=sizes.eps) if sizes.like_clip else nn.Identity()
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.depth))
        self.norm_out = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.projection = nn.Linear(sizes.width, sizes.projected, bias=False) if sizes.projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """What the token for the whole says at the end, normalised and projected.

        Args:
            x: Pictures less their mean over their standard deviation, shape (B, 3, H, W), sides divisible by the patch's.

        Returns:
            Shape (B, dim).
        """
        tokens = self._tokens(x)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.projection(self.norm_out(tokens[:, 0]))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the tokens of patches say after each quarter of the layers, normalised as at the end; arguments as above.

        References:
            DINOv2 (Oquab et al., 2023), https://arxiv.org/abs/2304.07193, whose layers in the middle are published so

        Returns:
            Four, or of fewer layers one each, of shape (B, width, rows of patches, columns of them).
        """
        tokens, found = self._tokens(x), []
        rows, columns = (side // self.sizes.patch for side in x.shape[2:])
        ends = {-(-len(self.layers) * quarter // 4) for quarter in (1, 2, 3, 4)}
        for number, layer in enumerate(self.layers, 1):
            tokens = layer(tokens)
            if number in ends:
                found.append(self.norm_out(tokens[:, 1:]).mT.unflatten(2, (rows, columns)))
        return tuple(found)

    def _tokens(self, x: Tensor) -> Tensor:
        """What enters the first layer, shape (B, 1 + rows columns, width)."""
        grid = self.patches(x)  # (B, width, rows, columns)
        tokens = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        normalised: Tensor = self.norm_in(tokens + self._positions(grid.shape[2], grid.shape[3]))
        return normalised

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Shape (1, 1 + rows columns, width): those that were learned, bicubic between them for another grid."""
        side = self.sizes.positions
        if (rows, columns) == (side, side):
            return self.positions
        learned = self.positions[:, 1:].mT.reshape(1, -1, side, side)
        between = functional.interpolate(learned, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.positions[:, :1], between.flatten(2).mT], dim=1)
