"""Noise levels and labels as vectors."""

import math

import torch
from torch import Tensor, nn

from ..errors import BadOption, ShapeError

GUIDANCE_UNIT = 1000.0
"""By how much a guidance scale is multiplied, so that its waves are those of noise levels."""

LABEL_SPREAD = 0.1
"""Standard deviation of label vectors at the start, about that of the noise level's: neither drowns the other."""


def check_even(dim: int) -> None:
    """Checks that a sinusoidal embedding can have a dimension.

    Raises:
        BadOption: It is not a positive even number.
    """
    if dim < 2 or dim % 2:
        raise BadOption(f"the dimension of a sinusoidal embedding must be a positive even number, got {dim}")


def sinusoidal(noise_level: Tensor, dim: int, to_the_end: bool = False) -> Tensor:
    r"""The sines, then the cosines of a noise level at geometrically falling frequencies.

    .. math:: [\sin(t f_0), \ldots, \sin(t f_{h-1}), \cos(t f_0), \ldots, \cos(t f_{h-1})]

    with :math:`f_i = 10000^{-i / h}` and :math:`h` half the dimension.

    References:
        Attention Is All You Need (Vaswani et al., 2017), Section 3.5, https://arxiv.org/abs/1706.03762
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Appendix B, https://arxiv.org/abs/2006.11239

    Args:
        noise_level: Shape (B,), any real values; about 0 to 1000.
        dim: An even number.
        to_the_end: Whether the last frequency is 1 / 10000 itself, as in the code of DDPM: i / (h - 1) in place of i / h.

    Returns:
        Shape (B, dim), float32 whatever the dtype of the noise level.

    Raises:
        BadOption: `dim` is not a positive even number.
        ShapeError: The noise level is not a vector.
    """
    check_even(dim)
    if noise_level.ndim != 1:
        raise ShapeError(f"expected a noise level of shape (B,), got {tuple(noise_level.shape)}")
    return waves(noise_level, frequencies(dim, noise_level.device, to_the_end))


def frequencies(dim: int, device: torch.device, to_the_end: bool = False) -> Tensor:
    """The frequencies of `sinusoidal`, shape (dim / 2,), float32."""
    half = dim // 2
    steps = max(1, half - 1) if to_the_end else half
    return torch.exp(torch.arange(half, dtype=torch.float32, device=device) * (-math.log(10000) / steps))


def waves(noise_level: Tensor, frequencies: Tensor) -> Tensor:
    """`sinusoidal` of noise levels, shape (B,), at frequencies that are known, shape (dim / 2,): shape (B, dim)."""
    angles = noise_level.float()[:, None] * frequencies  # (B, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ConditionEmbedding(nn.Module):
    """What the blocks of a network are told: the noise level, and what else it is conditioned on that is one vector.

    SiLU(MLP(sinusoidal(noise_level)) + table[label] + MLP(pooled) + MLP(sinusoidal(1000 guidance))), each MLP
    Linear(SiLU(Linear(...))), and each summand but the first where it is asked for. The last row of the table, which has
    `num_classes` + 1, stands for no label.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), Section 3, https://arxiv.org/abs/2105.05233
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Section 4, for the vector,
        https://arxiv.org/abs/2403.03206
        On Distillation of Guided Diffusion Models (Meng et al., 2023), Section 3.1, for the scale, https://arxiv.org/abs/2210.03142

    Args:
        frequencies: The dimension of the sinusoidal embedding, an even number.
        dim: The dimension of the result.
        num_classes: The number of labels; 0 for none.
        to_the_end: As in `sinusoidal`.
        pooled: The dimension of a vector; 0 for none.
        guidance: Whether there is a guidance scale.

    Raises:
        BadOption: `frequencies` is not a positive even number.
    """

    def __init__(
        self,
        frequencies: int,
        dim: int,
        num_classes: int = 0,
        to_the_end: bool = False,
        pooled: int = 0,
        guidance: bool = False,
    ) -> None:
        super().__init__()
        check_even(frequencies)
        self.frequencies = frequencies
        self.to_the_end = to_the_end
        self.enter = nn.Linear(frequencies, dim)
        self.leave = nn.Linear(dim, dim)
        self.label = nn.Embedding(num_classes + 1, dim) if num_classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=LABEL_SPREAD)
        self.pooled = TwoLayers(pooled, dim) if pooled else None
        self.guidance = TwoLayers(frequencies, dim) if guidance else None

    def forward(
        self, noise_level: Tensor, labels: Tensor, pooled: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """The vectors for a batch.

        Args:
            noise_level: Shape (B,).
            labels: Integers of shape (B,), from 0 to `num_classes`; not looked at where there are no labels.
            pooled: Shape (B, dim of the vector), where there is one.
            guidance: Shape (B,), where there is one.

        Returns:
            Shape (B, dim).
        """
        waves = sinusoidal(noise_level, self.frequencies, self.to_the_end)
        told = self.leave(nn.functional.silu(self.enter(waves.to(self.enter.weight.dtype))))  # (B, dim)
        if self.label is not None:
            told = told + self.label(labels)
        if self.pooled is not None:
            told = told + self.pooled(pooled)
        if self.guidance is not None and guidance is not None:
            scale = sinusoidal(GUIDANCE_UNIT * guidance.float(), self.frequencies, self.to_the_end)
            told = told + self.guidance(scale.to(self.enter.weight.dtype))
        return nn.functional.silu(told)


class TwoLayers(nn.Module):
    """Linear(SiLU(Linear(x))), for one vector of each sample.

    Args:
        channels: That enter.
        dim: Inside, and that leave.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, dim)
        self.leave = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, dim) for x of shape (B, channels)."""
        out: Tensor = self.leave(nn.functional.silu(self.enter(x)))
        return out
