"""How the noise of training differs from plain standard normal noise, where it does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import IncompatibleParts
from ..options import Checked, option


@dataclass(frozen=True)
class NoiseSettings(Checked):
    r"""What is done to the noise that samples are mixed with.

    Offset noise adds :math:`s \xi`, one number for each channel of a sample, to the noise, so that a model learns to make pictures
    that are dark or bright as a whole. The forward process then is another one: its noise has covariance
    :math:`I + s^2 1 1^T` within a channel, while samplers begin with and draw noise of covariance I. No exact denoiser and no Bayes
    floor is worked out for it.

    Input perturbation makes the noise in the network's input stronger than the noise that is its target, as the errors of earlier
    steps do when one samples. Only training sees it: validation and its floor are those of the plain process.

    Pairing deals the noise of a group of samples out to them so that the sum of squared distances is smallest. The pairs of
    noise and data cross less, so the paths from one to the other are straighter, and fewer steps do. Noise and data are no longer
    independent, so no Bayes floor is known; the noise by itself is as it was.

    References:
        Diffusion with Offset Noise (Guttenberg, 2023), https://www.crosslabs.org/blog/diffusion-with-offset-noise
        Input Perturbation Reduces Exposure Bias in Diffusion Models (Ning et al., 2023), Algorithm 1,
            https://arxiv.org/abs/2301.11706
        Multisample Flow Matching: Straightening Flows with Minibatch Couplings (Pooladian et al., 2023), Section 3,
            https://arxiv.org/abs/2304.14772
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
            Section 3.2, https://arxiv.org/abs/2302.00482
    """

    offset: float = option(
        0.0, help="standard deviation of noise that is one number for a whole channel; 0 for none", low=0, high=10
    )
    perturbation: float = option(
        0.0, help="noise added to the network's input alone, as a share of what is there; 0 for none", low=0, high=10
    )
    pairing: int = option(1, help="samples whose noise is dealt out by optimal transport; 1 for none", low=1, high=8192)

    @property
    def plain(self) -> bool:
        """Whether the noise is standard normal and independent of the data, which a Bayes floor is worked out for."""
        return self.offset == 0 and self.pairing == 1

    def check(self, x_0: Tensor) -> None:
        """Refuses data that this noise does not fit.

        Args:
            x_0: Encoded data, shape (B, ...).

        Raises:
            IncompatibleParts: Offset noise is asked for, and the samples have no channels.
        """
        if self.offset and x_0.ndim < 3:
            raise IncompatibleParts(
                f"offset noise is one number for each channel of a picture, and samples of shape {tuple(x_0.shape[1:])} have no "
                "channels: set objective.noise.offset=0"
            )
