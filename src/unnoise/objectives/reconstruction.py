"""What an autoencoder learns: to give its data back, through latents that are near a standard normal density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from ..errors import BadOption
from ..nn.autoencoder import Autoencoder
from ..options import Checked, option
from .adversary import AdversarialSettings

Distance = Callable[[Tensor, Tensor], Tensor]
"""How far samples are from others, shape (B,), for two batches as the autoencoder has them, about in [-1, 1]."""


class Reconstructed(NamedTuple):
    """A batch that went through an autoencoder, and what is wrong with it; every loss has shape (B,)."""

    made: Tensor  # (B, ...), float32
    pixel: Tensor
    perceptual: Tensor | None
    kl: Tensor | None

    @property
    def losses(self) -> Tensor:
        """The loss of every sample: all terms together."""
        return self.shown if self.kl is None else self.shown + self.kl

    @property
    def shown(self) -> Tensor:
        """The terms that look at what was made, shape (B,)."""
        return self.pixel if self.perceptual is None else self.pixel + self.perceptual


@dataclass(frozen=True)
class ReconstructionLoss(Checked):
    r"""The error of values, the distance between features, some divergence from a standard normal, and an adversary.

    .. math:: \mathcal L = \overline{|x - \hat x|^p} + w_P\, d(x, \hat x)
        + \frac{w_{KL}}{D} \sum_i \tfrac12 (\mu_i^2 + \sigma_i^2 - 1 - \ln \sigma_i^2) + w_A \lambda\, \mathcal L_{GAN}

    With D values of the data to a sample, so that the weight of the divergence is that of the paper.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Equation 25,
        https://arxiv.org/abs/2112.10752
    """

    pixel: Literal["l1", "l2"] = option("l1", help="the error of every value, in [-1, 1]: its size, or its square")
    perceptual: float = option(0.1, help="weight of the distance between features; 0 looks at values alone", low=0.0)
    kl: float = option(
        1e-6, help="weight of the divergence from a standard normal; with 0 latents are not drawn but told", low=0.0
    )
    adversarial: AdversarialSettings | None = option(None, help="a patch discriminator, where there is to be one")

    def check(self, variational: bool) -> None:
        """Refuses a divergence where no variance is told.

        Raises:
            BadOption: The two do not go together.
        """
        if self.kl and not variational:
            raise BadOption(
                "loss.kl: must be 0 with autoencoder.variational=false, which tells no variance of its latents"
            )

    def __call__(
        self, module: Autoencoder, x: Tensor, noise: Tensor | None = None, distance: Distance | None = None
    ) -> Reconstructed:
        """Sends a batch through an autoencoder.

        Args:
            module: The autoencoder.
            x: Shape (B, ...), as the autoencoder has it.
            noise: Standard normal numbers like the latents, which are drawn with them; None takes their means.
            distance: Between features.
        """
        mean, std = module.moments(x)
        made = module.decode(mean if noise is None or std is None or not self.kl else mean + std * noise)
        error = (made - x).flatten(1)
        pixel = error.abs().mean(1) if self.pixel == "l1" else error.square().mean(1)
        seen = self.perceptual * distance(made, x) if distance is not None and self.perceptual else None
        divergence = None
        if self.kl and std is not None:
            each = (mean.square() + std.square() - 1) / 2 - std.log()
            divergence = self.kl / error.shape[1] * each.flatten(1).sum(1)
        return Reconstructed(made, pixel, seen, divergence)
