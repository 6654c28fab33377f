"""How well pictures were given back: the ratio of signal to noise, and likeness of structure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError

WINDOW, SPREAD = 11, 1.5
"""Side and standard deviation of the window of `ssim`, in pixels."""


def psnr(made: Tensor, real: Tensor, most: float = 255.0) -> Tensor:
    r"""The peak signal-to-noise ratio of every picture, :math:`10 \log_{10} (\mathrm{most}^2 / \overline{(x - \hat x)^2})`.

    Args:
        made: Shape (B, ...).
        real: The same shape.
        most: By how much values can differ.

    Returns:
        In decibels, shape (B,), float64; infinite where nothing differs.

    Raises:
        ShapeError: The shapes differ.
    """
    _check(made, real)
    error = (made.double() - real.double()).flatten(1).square().mean(1)
    return 10 * torch.log10(most**2 / error)


def ssim(made: Tensor, real: Tensor, most: float = 255.0) -> Tensor:
    r"""The structural similarity of every picture, a mean over all places of a Gaussian window that lie inside, and channels.

    .. math:: \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}

    with c = (0.01 most)^2 and (0.03 most)^2. Pictures smaller than the window have one as large as they are.

    References:
        Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004), Equation 13,
        https://doi.org/10.1109/TIP.2003.819861

    Args:
        made: Shape (B, C, H, W).
        real: The same shape.
        most: By how much values can differ.

    Returns:
        At most 1, which is for equal pictures; shape (B,), float64.

    Raises:
        ShapeError: The shapes differ, or are not those of pictures.
    """
    _check(made, real)
    if made.ndim != 4:
        raise ShapeError(f"expected pictures of shape (B, C, H, W), got {tuple(made.shape)}")
    x, y = made.double(), real.double()
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    together = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * most) ** 2, (0.03 * most) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * together + c2)
    alike /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return alike.flatten(1).mean(1)


def _blurred(x: Tensor) -> Tensor:
    """Means over the window around every place where it lies inside."""
    channels = x.shape[1]
    for axis in (2, 3):
        size = min(WINDOW, x.shape[axis])
        place = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
        weights = torch.exp(-(place**2) / (2 * SPREAD**2))
        kernel = (weights / weights.sum()).reshape(1, 1, *((size, 1) if axis == 2 else (1, size)))
        x = functional.conv2d(x, kernel.expand(channels, 1, -1, -1), groups=channels)
    return x


def _check(made: Tensor, real: Tensor) -> None:
    if made.shape != real.shape:
        raise ShapeError(f"expected two batches of one shape, got {tuple(made.shape)} and {tuple(real.shape)}")
