"""Ways to change a sample that leave what it shows: what the network must look past."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional


def moved(x: Tensor, draw: Generator) -> Tensor:
    """Pictures moved by up to an eighth of their side each way, the edge mirrored; shape (B, C, H, W)."""
    (batch, _, height, width) = x.shape
    down, right = height // 8, width // 8
    padded = functional.pad(x, (right, right, down, down), mode="reflect")
    top = torch.randint(0, 2 * down + 1, (batch, 1), generator=draw) + torch.arange(height)
    left = torch.randint(0, 2 * right + 1, (batch, 1), generator=draw) + torch.arange(width)
    each = torch.arange(batch)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)


def mirrored(x: Tensor, draw: Generator) -> Tensor:
    """Half of the pictures mirrored left to right; shape (B, C, H, W)."""
    turn = torch.rand(len(x), 1, 1, 1, generator=draw) < 0.5
    return torch.where(turn, x.flip(3), x)


def cropped(x: Tensor, draw: Generator, least: float = 0.35) -> Tensor:
    """A part of each picture, brought back to its size; shape (B, C, H, W).

    Args:
        x: Pictures.
        draw: Where the parts are drawn from.
        least: The smallest share of the area that is kept; the sides' ratio changes by up to 4 to 3.
    """
    area, ratio, across, down = torch.rand(4, len(x), generator=draw)
    side = (least + (1 - least) * area).sqrt()
    shape = ((2 * ratio - 1) * 0.2877).exp().sqrt()  # ln(4 / 3)
    width, height = (side * shape).clamp(max=1), (side / shape).clamp(max=1)
    shift = torch.stack([(2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height)], dim=1)
    matrix = torch.cat([torch.diag_embed(torch.stack([width, height], dim=1)), shift[:, :, None]], dim=2)  # (B, 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def lit(x: Tensor, draw: Generator, reach: float = 0.4) -> Tensor:
    """Pictures of another contrast, brightness and saturation; shape (B, C, H, W), in units of their standard deviation."""
    contrast, colour, light = (torch.rand(3, len(x), 1, 1, 1, generator=draw) * 2 - 1) * reach
    mean = x.mean((1, 2, 3), keepdim=True)
    grey = x[:, :3].mean(1, keepdim=True)
    return (grey + (x - grey) * (1 + colour) - mean) * (1 + contrast) + mean + light


def softened(x: Tensor, share: Tensor) -> Tensor:
    """Pictures blurred by (1, 2, 1) / 4 along both axes, twice, in part; shape (B, C, H, W).

    Args:
        x: Pictures.
        share: How much of the blurred picture is taken, in [0, 1], shape (B, 1, 1, 1).
    """
    soft = functional.pad(x, (2, 2, 2, 2), mode="replicate")
    for _ in range(2):
        soft = (soft[:, :, :-2] + 2 * soft[:, :, 1:-1] + soft[:, :, 2:]) / 4
        soft = (soft[..., :-2] + 2 * soft[..., 1:-1] + soft[..., 2:]) / 4
    return x + share * (soft - x)


def noisy(x: Tensor, draw: Generator, size: Tensor) -> Tensor:
    """With normal noise of a standard deviation for each sample, shape (B, 1, ..., 1); any shape."""
    return x + size * torch.randn(x.shape, generator=draw)


def scaled(x: Tensor, draw: Generator, reach: float = 0.1) -> Tensor:
    """Larger or smaller by up to `reach`; any shape."""
    return x * (1 + (torch.rand(len(x), *[1] * (x.ndim - 1), generator=draw) * 2 - 1) * reach)


def light_view(x: Tensor, draw: Generator, picture: bool) -> Tensor:
    """What a network that learns by labels sees: pictures moved, those in colour mirrored too; the rest as it is.

    Grey ones are not mirrored, because they may be writing.
    """
    if not picture:
        return x
    return moved(x if x.shape[1] == 1 else mirrored(x, draw), draw)


def strong_view(x: Tensor, draw: Generator, picture: bool) -> tuple[Tensor, Tensor]:
    """What a network that learns without labels sees: pictures changed in all ways; noise and scale for the rest.

    Returns:
        The view, and how much it was blurred and how noisy it was made, in [-1, 1], shape (B, 2).
    """
    each = len(x), *[1] * (x.ndim - 1)
    blur, noise = torch.rand(2, *each, generator=draw)
    if picture:
        view = noisy(softened(lit(mirrored(cropped(x, draw), draw), draw), blur), draw, 0.3 * noise)
    else:
        view = noisy(scaled(x, draw), draw, 0.1 * noise)
    return view, torch.stack([blur.flatten(), noise.flatten()], dim=1) * 2 - 1
