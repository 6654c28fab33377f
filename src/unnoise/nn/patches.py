"""Samples cut into patches, one token each, and where each of them lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import IncompatibleParts, ShapeError

WAVELENGTH = 10_000
"""Of the slowest wave of a position, in patches and over 2 pi."""


def checked_patch(shape: tuple[int, ...], out_shape: tuple[int, ...], patch: int | tuple[int, ...]) -> tuple[int, ...]:
    """The patch along every axis of the data.

    Args:
        shape: Of one sample of a transformer's input.
        out_shape: Of its output.
        patch: Places along every axis, or along each.

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, the patch does not divide its size or has another number
            of axes, or the output has another size than the input.
    """
    if not 2 <= len(shape) <= 4:
        known = "(C, L), (C, H, W) or (C, T, H, W)"
        raise IncompatibleParts(
            f"a transformer needs samples of shape {known}, got {shape}: take the network mlp, network.name=mlp"
        )
    size = shape[1:]
    if out_shape[1:] != size:
        wanted = ", ".join(map(str, size))
        raise IncompatibleParts(
            f"a transformer keeps sizes: expected an output of shape (C, {wanted}), got {out_shape}"
        )
    whole = (patch,) * len(size) if isinstance(patch, int) else patch
    if len(whole) != len(size):
        raise IncompatibleParts(
            f"network.patch: expected one number or {len(size)}, one for each axis, got {list(whole)}"
        )
    check_divides(whole, size, IncompatibleParts)
    return whole


def check_divides(patch: Sequence[int], size: Sequence[int], error: type[Exception]) -> None:
    """Checks that data of a size can be cut into patches.

    Args:
        patch: Places along each axis.
        size: Of the data.
        error: What is raised where it cannot.
    """
    if any(whole % places for whole, places in zip(size, patch, strict=True)):
        given = f"data of size {' x '.join(map(str, size))} cannot be cut into patches of {' x '.join(map(str, patch))}"
        fitting = " x ".join(str(max(p, s - s % p)) for s, p in zip(size, patch, strict=True))
        divisors = [n for n in range(1, min(size) + 1) if all(s % n == 0 for s in size)]
        raise error(f"{given}: give data of size {fitting}, or a network.patch of {' or '.join(map(str, divisors))}")


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


def positions(
    grid: tuple[int, ...], width: int, device: torch.device | None = None, table: int = 0, spacing: float = 1.0
) -> Tensor:
    r"""Where the tokens of a grid lie, as sines and cosines.

    The channels are shared out among the axes, the last axis first; a token at n of an axis with 2h channels has

    .. math:: [\sin(n f_0), \ldots, \sin(n f_{h-1}), \cos(n f_0), \ldots, \cos(n f_{h-1})], \qquad f_i = 10000^{-i / h}.

    Without a table places are counted from 0, so that grids of other sizes agree where they overlap. With one they are those of
    the middle of a larger grid, so that grids of other sizes have their middle in common.

    References:
        Scalable Diffusion Models with Transformers (Peebles and Xie, 2023), Section 3.2, https://arxiv.org/abs/2212.09748
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Section 5.3.2, for the table,
        https://arxiv.org/abs/2403.03206

    Args:
        grid: Tokens along each axis.
        width: Channels, an even number.
        device: Where it is made.
        table: Tokens along every axis of the larger grid; 0 for none.
        spacing: From one token to the next.

    Returns:
        Shape (tokens, width), float64 where the device knows it, else float32.

    Raises:
        ShapeError: The grid is larger than the table.
    """
    if table and max(grid) > table:
        told = " x ".join(map(str, grid))
        raise ShapeError(f"expected at most {table} patches along an axis, the table of positions, got {told}")
    dims = len(grid)
    parts = []
    for turn, axis in enumerate(reversed(range(dims))):
        half = (width // 2 + turn) // dims  # the halves of all axes add up to that of the width
        start = (table - grid[axis]) // 2 if table else 0
        angles = _angles(grid[axis], half, device, start, spacing)  # (n, half)
        parts.append(_spread(torch.cat([angles.sin(), angles.cos()], dim=1), axis, grid))
    return torch.cat(parts, dim=-1).flatten(0, -2)


def rotations(
    grid: tuple[int, ...], axes: tuple[int, ...], channels: int, before: int = 0, device: torch.device | None = None
) -> Tensor:
    """By which angles the channels of a head are turned at every place of a grid, for `rotated`.

    The last channels are shared out among the axes; those that are left in front are turned nowhere.

    References:
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021), Equation 15, https://arxiv.org/abs/2104.09864

    Args:
        grid: Tokens along each axis.
        axes: Channels of each axis, even numbers, together at most all.
        channels: Of a head, an even number.
        before: Tokens without a place, which come before the others and are not turned.
        device: Where it is made.

    Returns:
        Shape (before + tokens, channels / 2), float64 where the device knows it, else float32.
    """
    parts = [
        _spread(_angles(grid[axis], axes[axis] // 2, device), axis, grid).flatten(0, -2) for axis in range(len(grid))
    ]
    return nn.functional.pad(torch.cat(parts, dim=1), (channels // 2 - sum(axes) // 2, 0, before, 0))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys with every pair of neighbouring channels turned by an angle.

    Args:
        x: Shape (B, tokens, heads, channels of a head).
        angles: Shape (tokens, channels of a head / 2).

    Returns:
        Shape of x.
    """
    precise = torch.float64 if x.dtype == torch.float64 else torch.float32
    cos, sin = angles.cos().to(precise)[:, None], angles.sin().to(precise)[:, None]
    first, second = x.to(precise).unflatten(3, (-1, 2)).unbind(4)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=4).flatten(3).to(x.dtype)


def _angles(places: int, half: int, device: torch.device | None, start: int = 0, spacing: float = 1.0) -> Tensor:
    """Places times the frequencies of an axis with 2 half channels, shape (places, half)."""
    dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
    exponents = torch.arange(half, dtype=dtype, device=device) / max(half, 1)
    at = spacing * torch.arange(start, start + places, dtype=dtype, device=device)
    return at[:, None] * torch.exp(-math.log(WAVELENGTH) * exponents)


def _spread(along: Tensor, axis: int, grid: tuple[int, ...]) -> Tensor:
    """What holds along one axis, shape (places, channels), at every token of the grid: shape (*grid, channels)."""
    around = [1] * axis, [1] * (len(grid) - 1 - axis)
    return along.reshape(*around[0], grid[axis], *around[1], -1).expand(*grid, -1)
