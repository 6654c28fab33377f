"""Which places of a picture read which word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import ShapeError
from . import style
from .arrays import Array, Floats, floats
from .strip import stack, strip

SIDE = 160  # of a picture that is smaller, at least
ACROSS = 6  # pictures in a row
LEAST_SPAN = 0.5
"""Of the mean weight, by how much weights must differ for the veil to be as thin as it can be where they are largest."""


def word_maps(picture: Image.Image, maps: Array, words: Sequence[str], title: str | None = None) -> Image.Image:
    """A picture, then the same under a veil for each word, through which one sees where that word is read.

    A veil is thinnest where its word is read most. Under each stands by how much that is more than everywhere on average.

    Args:
        picture: What was made.
        maps: Weights of the words, shape (words, H, W), not negative.
        words: One for each map.
        title: A line above all.

    Raises:
        ShapeError: There are not as many maps as words, or none, or a weight is negative or no number.
    """
    weights = floats(maps)
    if weights.ndim != 3 or len(weights) != len(words) or not weights.size:
        raise ShapeError(f"expected maps of shape ({len(words)}, H, W), one for each word, got {weights.shape}")
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ShapeError("expected weights that are numbers and not negative")
    by = max(1, math.ceil(SIDE / min(picture.size)))
    size = picture.width * by, picture.height * by
    plain = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    frames = [plain, *(_veiled(plain, weight) for weight in weights)]
    captions = ["the picture", *(f"{word}\n{_sharpness(w)}" for word, w in zip(words, weights, strict=True))]
    rows = [strip(frames[i : i + ACROSS], captions[i : i + ACROSS]) for i in range(0, len(frames), ACROSS)]
    return stack(rows, [title or "", *[""] * (len(rows) - 1)])


def _sharpness(weight: Floats) -> str:
    mean = float(weight.mean())
    return f"up to {weight.max() / mean:.2f} x" if mean > 0 else "not read"


def _veiled(picture: Image.Image, weight: Floats) -> Image.Image:
    """The picture where the weight is largest, and half hidden by the palest paper where it is least."""
    low, high, mean = float(weight.min()), float(weight.max()), float(weight.mean())
    # A word that is read nearly alike everywhere stays under its veil: what little differs is not stretched to the whole range.
    span = max(high - low, LEAST_SPAN * mean)
    shares = (weight - low) / span if span > 0 else np.zeros_like(weight)
    mask = Image.fromarray((255 * shares).round().astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
    grey = picture.convert("L").point(lambda value: 170 + value // 4).convert("RGB")
    tint = Image.new("RGB", picture.size, style.PALETTE[0])
    hidden = Image.blend(grey, tint, 0.15)
    return Image.composite(picture, hidden, mask)
