"""The way down of the U-Net alone: from noisy data to a few numbers about it, such as how well each label fits."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .base import Condition, Network
from .blocks import Downsample, group_norm
from .convolution import convolution
from .embedding import ConditionEmbedding
from .group_norm import best_layout
from .unet import Stage, UNetConfig, check_levels


class UNetEncoder(Network):
    """Residual blocks at falling resolution, a mean over all places, and a linear layer that is zero at the start.

    Not a network of a denoiser, whose answer is as large as its question, and so in no registry. Takes samples of shape (C, L),
    (C, H, W) or (C, T, H, W).

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), Section 4.1 and Appendix C: the classifier,
        there with attention in place of the mean, https://arxiv.org/abs/2105.05233

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, or too small for so many levels.
    """

    Config = UNetConfig
    config: UNetConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: UNetConfig | None = None,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        check_levels(self.shape, self.shape, self.config)
        config, dims = self.config, len(self.shape) - 1
        widths = [config.width * multiplier for multiplier in config.multipliers]
        dim = config.width * config.embedding_factor
        self.embedding = ConditionEmbedding(config.width + config.width % 2, dim, num_classes)
        self.enter = convolution(dims, self.shape[0], config.width)
        self.downsamples = nn.ModuleList(Downsample(dims, channels) for channels in widths[:-1])
        self.levels = nn.ModuleList()
        for level, (before, out) in enumerate(zip([config.width, *widths], widths, strict=False)):
            entering = [before] + [out] * (config.blocks - 1)
            self.levels.append(
                nn.ModuleList(Stage(dims, each, out, config.attends(level), config) for each in entering)
            )
        self.norm = group_norm(widths[-1], config.groups, silu=True)
        self.leave = nn.Linear(widths[-1], math.prod(self.out_shape))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """Shape (B, *out_shape), for x of shape (B, *shape) and noise_level of shape (B,).

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: A tensor has another shape.
        """
        self.check(x, noise_level)
        told = self.embedding(noise_level, self.labels(cond, x))  # (B, embedding)
        h = self.enter(best_layout(x))  # (B, width, *size)
        for level, stages in enumerate(self.levels):
            if level:
                h = self.downsamples[level - 1](h)  # (B, channels, *halved)
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, told)
        out: Tensor = self.leave(self.norm(h).flatten(2).mean(2))  # (B, values)
        return out.reshape(len(x), *self.out_shape)
