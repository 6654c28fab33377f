"""Noise prediction, the choice of DDPM."""

from torch import Tensor

from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("noise")
class NoiseDenoiser(PreconditionedDenoiser):
    r"""The network predicts the noise that was mixed into the data.

    The clean data is then :math:`x_0 = (x_t - \sigma F) / \alpha`.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 15, https://arxiv.org/abs/2006.11239
    """

    needs_signal = True

    def coefficients(self, t: Tensor) -> Coefficients:
        """1 / alpha, -sigma / alpha, unit variance, noise level."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Coefficients(1 / alpha, -sigma / alpha, self.input_scale(t), self.schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The noise."""
        return eps
