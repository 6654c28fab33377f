"""Latents that were encoded before, as training reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.augmentation import Augmentation
from ..errors import IncompatibleParts
from ..options import option
from .autoencoder import posterior_draw
from .base import Codec, Positions


@dataclass(frozen=True)
class StoredLatents(Codec):
    """Takes latents out of what stands in a cache: their means first, then their standard deviations where they are kept.

    Training has it in the place of the codec that made them. It is no codec of a model.
    """

    channels: int = option(4, help="channels of the latents", low=1)
    spread: bool = option(False, help="whether standard deviations are kept beside means")
    drawn_each_time: bool = option(
        False, help="whether training sees latents that are drawn by them, and not the means"
    )

    def encode(self, x: Tensor) -> Tensor:
        """The means of shape (B, channels, *places), of what is kept, shape (B, kept channels, *places)."""
        return x[:, : self.channels].float()

    def decode(self, z: Tensor) -> Tensor:
        """Nothing, for the decoder is not here.

        Raises:
            IncompatibleParts: Always.
        """
        raise IncompatibleParts("latents that were kept have no decoder: take the codec that made them")

    def drawn(self, x: Tensor, seed: int, positions: Positions) -> Tensor:
        """See `Codec.drawn`."""
        mean = self.encode(x)
        if not (self.spread and self.drawn_each_time):
            return mean
        return posterior_draw(mean, x[:, self.channels : 2 * self.channels].float(), seed, positions)

    def shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Codec.shape`."""
        return (self.channels, *data_shape[1:])


@dataclass(frozen=True)
class StoredMirror(Augmentation):
    """Takes the latents of a picture or of its mirror image, which stand one after the other, by the chance of `Augmentation`."""

    flips: bool = True

    def apply(self, x: Tensor, seed: int, positions: Positions) -> Tensor:
        """The latents as a run sees them, shape (n, C, *places), of what is kept, shape (n, 2 C, *places)."""
        plain, mirrored = x.chunk(2, dim=1)
        return torch.where(self.mirrored(seed, positions).reshape(-1, *[1] * (x.ndim - 1)), mirrored, plain)
