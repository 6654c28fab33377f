"""Group normalisation together with what stands around it in a U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .kernels.group_norm import group_norm
from .kernels.library import library


class GroupNorm(nn.GroupNorm):
    """SiLU(GroupNorm(x + added) (1 + scale) + shift), where everything but the normalisation may be left out.

    Statistics are float32 or finer whatever the data, and weights may stay float32 beside coarser data. On a CPU it is one pass
    over memory each way for data whose channels lie innermost, so that it does not cost more than the convolutions around it.

    References:
        Group Normalization (Wu and He, 2018), https://arxiv.org/abs/1803.08494
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), Equation 3, https://arxiv.org/abs/2105.05233

    Args:
        groups: A divisor of the channels.
        channels: Channels of what it normalises.
        eps: What is added to a variance before its root is taken.
        silu: Whether SiLU follows.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, silu: bool = False) -> None:
        super().__init__(groups, channels, eps)
        self.silu = silu

    def forward(
        self, x: Tensor, added: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """What it gives.

        Args:
            x: Shape (B, channels, *size).
            added: Shape (B, channels): what is added to every place of a sample first.
            scale: Shape (B, channels).
            shift: Shape (B, channels).

        Returns:
            Shape and dtype of x.
        """
        return group_norm(x, self.weight, self.bias, added, scale, shift, self.num_groups, self.eps, self.silu)


def best_layout(x: Tensor) -> Tensor:
    """The same batch, with its channels innermost in memory wherever convolutions and `GroupNorm` are quicker so.

    Args:
        x: Shape (B, channels, *size).
    """
    dims = x.ndim - 2
    if x.device.type == "cpu":
        innermost = dims in (2, 3) and not torch.compiler.is_compiling() and library() is not None
    else:
        innermost = dims == 2 and x.device.type == "cuda"
    return x.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d) if innermost else x
