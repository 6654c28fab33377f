"""The space of the data itself, only centred and scaled: pixels in [-1, 1], points with unit variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError
from ..options import option
from .base import Codec, codecs


@codecs.register("identity")
@dataclass(frozen=True)
class IdentityCodec(Codec):
    """The data as it is, shifted and scaled: all channels alike or each by its own.

    z = (x - shift) / scale.

    Args:
        shift: One number, or one a channel (axis 1).
        scale: One positive number, or one a channel.

    Raises:
        BadOption: A scale is not positive.
    """

    shift: tuple[float, ...] = option((0.0,), help="what is subtracted: one number, or one a channel")
    scale: tuple[float, ...] = option((1.0,), help="what is then divided by: one positive number, or one a channel")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.scale, default=0.0) <= 0:
            raise BadOption(f"scale: must be positive, got {self.scale}")

    @classmethod
    def pixels(cls) -> IdentityCodec:
        """Bytes of 0 ... 255 as [-1, 1]."""
        return cls((127.5,), (127.5,))

    @classmethod
    def standardizing(cls, x: Tensor) -> IdentityCodec:
        """Zero mean and unit variance for every channel of some data.

        Args:
            x: Shape (N, C, ...).

        Raises:
            DataError: A channel is constant.
        """
        channels = x.double().transpose(0, 1).flatten(1)
        mean, std = channels.mean(1), channels.std(1, correction=0)
        if bool((std == 0).any()):
            at = int((std == 0).nonzero()[0])
            raise DataError(
                f"channel {at} of the data is constant ({float(mean[at]):g}): leave it out, or set codec=identity"
            )
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def _over(self, values: tuple[float, ...], x: Tensor) -> Tensor:
        if len(values) not in (1, x.shape[1]):
            raise ShapeError(f"expected data of {len(values)} channels, got shape {tuple(x.shape)}")
        return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(1, -1, *[1] * (x.ndim - 2))

    def encode(self, x: Tensor) -> Tensor:
        """See `Codec.encode`."""
        x = x if x.dtype == torch.float64 else x.float()
        return (x - self._over(self.shift, x)) / self._over(self.scale, x)

    def decode(self, z: Tensor) -> Tensor:
        """See `Codec.decode`."""
        return z * self._over(self.scale, z) + self._over(self.shift, z)
