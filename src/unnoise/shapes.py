"""The one place where a time meets an image, so that no batch is ever broadcast against a wrong axis."""

from torch import Tensor

from .errors import ShapeError


def over(values: Tensor, x: Tensor) -> Tensor:
    """Per-sample values, shaped to multiply a batch, in its dtype and on its device.

    Args:
        values: Shape () or (B,).
        x: Shape (B, ...).

    Returns:
        Shape () or (B, 1, ..., 1).

    Raises:
        ShapeError: `values` has another shape.
    """
    if values.ndim == 0:
        return values.to(device=x.device, dtype=x.dtype)
    if values.shape != x.shape[:1]:
        raise ShapeError(f"expected shape () or ({len(x)},) to match x {tuple(x.shape)}, got {tuple(values.shape)}")
    return values.to(device=x.device, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values of shape () or (B,), as (B,).

    Raises:
        ShapeError: `values` has another shape.
    """
    if values.ndim == 0:
        return values.expand(len(x))
    if values.shape != x.shape[:1]:
        raise ShapeError(f"expected shape () or ({len(x)},) to match x {tuple(x.shape)}, got {tuple(values.shape)}")
    return values


def match(name: str, value: Tensor, x: Tensor) -> None:
    """Checks that two tensors have one shape.

    Raises:
        ShapeError: They do not.
    """
    if value.shape != x.shape:
        raise ShapeError(f"expected {name} of shape {tuple(x.shape)}, as x, got {tuple(value.shape)}")
