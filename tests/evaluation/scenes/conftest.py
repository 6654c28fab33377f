"""Pictures of coloured shapes as they come out of the world: noisy, blurred, compressed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional


def clean(x):
    return x


def noisy(x, level=20.0):
    """Normal noise of so many grey levels."""
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + level * eps).clamp(0, 255)


def blurred(x, sigma=1.0):
    """By a Gaussian, in pixels."""
    at = torch.arange(-4, 5).float()
    weights = torch.exp(-at.square() / (2 * sigma**2))
    kernel = torch.outer(weights, weights)
    padded = functional.pad(x.float(), (4, 4, 4, 4), mode="replicate")
    return functional.conv2d(padded, (kernel / kernel.sum()).expand(3, 1, 9, 9), groups=3)


def compressed(x, quality=80):
    """By JPEG, with colours at half the resolution."""
    made = []
    for picture in x.round().to(torch.uint8):
        stream = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=quality)
        made.append(torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1))
    return torch.stack(made)


def all_at_once(x):
    return compressed(noisy(blurred(x, 0.7), 12.0), 90)


@pytest.fixture(params=[clean, noisy, blurred, compressed, all_at_once], ids=lambda f: f.__name__)
def spoil(request):
    return request.param
