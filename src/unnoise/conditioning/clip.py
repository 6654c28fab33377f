"""CLIP: pictures and captions in one space, where what belongs together lies together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nn.autoencoder import AutoencoderConfig, Encoder
from ..nn.linear import Linear
from ..nn.spatial_transformer import TokenNorm
from ..options import option
from .text.base import TextEncoder
from .text.network import PADDING

FIRST_SCALE = 1 / 0.07
"""What cosines are multiplied by at the start of training."""
LARGEST_SCALE = 100.0
"""The most that they are multiplied by, above which training is not stable."""


@dataclass(frozen=True)
class PictureTowerConfig:
    """The options of the tower that reads pictures."""

    width: int = option(32, help="channels of the finest level", low=1)
    multipliers: tuple[int, ...] = option(
        (1, 2, 4, 6), help="channels of each level, in widths; sizes halve between", low=1
    )
    blocks: int = option(1, help="residual blocks of a level", low=1)


class Clip(nn.Module):
    """Two towers, one for pictures and one for texts, each with a projection into one space, and a learned temperature.

    The tower of pictures is the encoder of an autoencoder, averaged over places; that of texts is any text encoder, of which
    the state of the whole text is taken.

    References:
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), Section 2.3,
        https://arxiv.org/abs/2103.00020

    Args:
        shape: Of one picture, (C, H, W).
        config: Of the tower that reads pictures.
        text: The tower that reads texts.
        pad: The token that fills texts up.
        dim: Numbers of the common space.
    """

    def __init__(
        self, shape: tuple[int, ...], config: PictureTowerConfig, text: TextEncoder, pad: int, dim: int
    ) -> None:
        super().__init__()
        width = config.width * config.multipliers[-1]
        sizes = AutoencoderConfig(
            width=config.width, multipliers=config.multipliers, blocks=config.blocks, latent_channels=width,
            attention=False, variational=False, mixes=False,
        )  # fmt: skip
        self.pictures = Encoder(len(shape) - 1, shape[0], sizes)
        self.picture_norm, self.project_picture = TokenNorm(width), Linear(width, dim, bias=False)
        self.text, self.pad = text, pad
        self.text_norm, self.project_text = TokenNorm(text.width), Linear(text.width, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.dim = dim

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, 0-dimensional: one over the temperature."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def picture(self, x: Tensor) -> Tensor:
        """Pictures as points of the common space, of length 1.

        Args:
            x: Shape (B, C, H, W), about in [-1, 1].

        Returns:
            Shape (B, dim).
        """
        pooled = self.picture_norm(self.pictures(x).flatten(2).mean(2))
        return nn.functional.normalize(self.project_picture(pooled), dim=1)

    def words(self, ids: Tensor) -> Tensor:
        """Texts as points of the common space, of length 1.

        Args:
            ids: Shape (B, tokens), -1 where there are none.

        Returns:
            Shape (B, dim).
        """
        mask = ids != PADDING
        states = self.text(ids.masked_fill(~mask, self.pad), mask)
        return nn.functional.normalize(self.project_text(self.text_norm(self.text.pooled(states, mask))), dim=1)

    def forward(self, x: Tensor, noise_level: Tensor | None = None, cond: dict[str, Tensor] | None = None) -> Tensor:
        """What `picture` gives; with texts in the condition, beside what `words` gives: shape (B, dim) or (B, 2 dim)."""
        made = self.picture(x)
        return made if cond is None else torch.cat([made, self.words(cond["text"])], dim=1)
