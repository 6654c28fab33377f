"""What an extractor agrees to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from ...data.base import Spec
from ...errors import DataError, ShapeError


def check_samples(x: Tensor, spec: Spec) -> None:
    """Refuses samples that are not like those of the real data.

    Args:
        x: A batch.
        spec: What one sample of the real data is.

    Raises:
        ShapeError: The samples have another shape, or pictures are no bytes.
    """
    if x.ndim == 0 or tuple(x.shape[1:]) != spec.shape:
        raise ShapeError(f"expected samples of shape {spec.shape} as the real data has, got {tuple(x.shape[1:])}")
    _check_bytes(x, spec.kind == "image")


def check_pictures(x: Tensor) -> None:
    """Refuses what is no batch of pictures.

    Raises:
        ShapeError: The shape is not (B, C, H, W) with 1, 3 or 4 channels, or the pictures are no bytes.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3, 4) or 0 in x.shape[2:]:
        raise ShapeError(f"expected pictures of shape (B, C, H, W) with 1, 3 or 4 channels, got {tuple(x.shape)}")
    _check_bytes(x, True)


def _check_bytes(x: Tensor, wanted: bool) -> None:
    if wanted != (x.dtype == torch.uint8):
        raise ShapeError(f"expected {'pictures as bytes (uint8)' if wanted else 'floats'}, got {x.dtype}")


def is_picture(spec: Spec) -> bool:
    """Whether samples are pictures of 1, 3 or 4 channels."""
    return spec.kind == "image" and len(spec.shape) == 3 and spec.shape[0] in (1, 3, 4)


def refuse_unless_picture(spec: Spec, name: str) -> None:
    """Refuses a data set that is not of pictures.

    Args:
        spec: What one sample is.
        name: Of the extractor.

    Raises:
        DataError: It is not.
    """
    if not is_picture(spec):
        what = f"{spec.kind} of shape {spec.shape}"
        raise DataError(f"{name} looks at pictures of 1, 3 or 4 channels only, not at {what}: take the extractor 'own'")
