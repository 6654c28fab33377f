"""Samples cut into patches, one token each, and where each of them lies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WAVELENGTH = 10_000
"""Of the slowest wave of a position, in patches and over 2 pi."""


def patchify(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The patches of samples, each as one row.

    Args:
        x: Shape (B, C, *size), each size a multiple of that of the patch.
        patch: Places along each axis.

    Returns:
        Shape (B, tokens, channels of a patch): patches in the order of the array, and in each of them the places in the
        order of the array with the channels innermost.
    """
    dims = len(patch)
    for axis, places in enumerate(patch):
        x = x.unflatten(2 + 2 * axis, (-1, places))
    # x is (B, C, n_1, p_1, n_2, p_2, ...)
    x = x.permute(0, *range(2, 2 + 2 * dims, 2), *range(3, 3 + 2 * dims, 2), 1)
    return x.flatten(1 + dims).flatten(1, dims)


def unpatchify(tokens: Tensor, size: tuple[int, ...], patch: tuple[int, ...]) -> Tensor:
    """The samples that `patchify` cut.

    Args:
        tokens: Shape (B, tokens, channels of a patch).
        size: Of a sample, without its channels.
        patch: Places along each axis.

    Returns:
        Shape (B, C, *size).
    """
    dims = len(patch)
    grid = [whole // places for whole, places in zip(size, patch, strict=True)]
    x = tokens.unflatten(2, (*patch, -1)).unflatten(1, grid)  # (B, n_1, n_2, ..., p_1, p_2, ..., C)
    pairs = [axis for pair in zip(range(1, 1 + dims), range(1 + dims, 1 + 2 * dims), strict=True) for axis in pair]
    return x.permute(0, 1 + 2 * dims, *pairs).reshape(len(tokens), -1, *size)


def positions(grid: tuple[int, ...], width: int, device: torch.device | None = None) -> Tensor:
    r"""Where the tokens of a grid lie, as sines and cosines.

    The channels are shared out among the axes, the last axis first; token n of an axis with 2h channels has

    .. math:: [\sin(n f_0), \ldots, \sin(n f_{h-1}), \cos(n f_0), \ldots, \cos(n f_{h-1})], \qquad f_i = 10000^{-i / h}.

    A position does not depend on the size of the grid, so grids of other sizes agree where they overlap.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748

    Args:
        grid: Tokens along each axis.
        width: Channels, an even number.
        device: Where it is made.

    Returns:
        Shape (tokens, width), float64 where the device knows it, else float32.
    """
    dims = len(grid)
    dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
    parts = []
    for turn, axis in enumerate(reversed(range(dims))):
        half = (width // 2 + turn) // dims  # the halves of all axes add up to that of the width
        exponents = torch.arange(half, dtype=dtype, device=device) / max(half, 1)
        places = torch.arange(grid[axis], dtype=dtype, device=device)
        angles = places[:, None] * torch.exp(-math.log(WAVELENGTH) * exponents)  # (n, half)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (n, 2 half)
        around = [1] * axis, [1] * (dims - 1 - axis)
        parts.append(waves.reshape(*around[0], grid[axis], *around[1], 2 * half).expand(*grid, 2 * half))
    return torch.cat(parts, dim=-1).flatten(0, -2)
