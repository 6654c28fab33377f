"""v prediction, from progressive distillation."""

from torch import Tensor

from ..shapes import over
from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("v")
class VDenoiser(PreconditionedDenoiser):
    r"""The network predicts v, a mix of noise and data: alpha times the noise less sigma times the data.

    .. math:: v = \alpha \varepsilon - \sigma x_0

    Solved for the clean data, :math:`x_0 = (\alpha x_t - \sigma F) / (\alpha^2 + \sigma^2)`.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), Appendix D,
        https://arxiv.org/abs/2202.00512
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """alpha and -sigma over alpha^2 + sigma^2, unit variance, noise level."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        power = alpha**2 + sigma**2
        return Coefficients(alpha / power, -sigma / power, self.input_scale(t), self.schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """alpha eps - sigma x_0."""
        return over(self.schedule.alpha(t), x_0) * eps - over(self.schedule.sigma(t), x_0) * x_0
