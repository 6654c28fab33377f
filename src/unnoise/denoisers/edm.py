"""EDM's preconditioning: input, output and target of the network all have unit variance."""

from torch import Tensor

from ..shapes import over
from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("edm")
class EDMDenoiser(PreconditionedDenoiser):
    r"""The network predicts what is left after the best linear guess, scaled to unit variance.

    With :math:`P = \alpha^2 \sigma_{data}^2 + \sigma^2`: :math:`c_{skip} = \alpha \sigma_{data}^2 / P`,
    :math:`c_{out} = \sigma \sigma_{data} / \sqrt{P}`, :math:`c_{in} = 1 / \sqrt{P}`, on any schedule. Exact for Gaussian
    data with F = 0.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), Table 1 and Appendix B.6,
        https://arxiv.org/abs/2206.00364
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """See the class."""
        alpha, sigma, scale = self.schedule.alpha(t), self.schedule.sigma(t), self.input_scale(t)
        skip = alpha * self.sigma_data**2 * scale**2
        return Coefficients(skip, sigma * self.sigma_data * scale, scale, self.schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(x_0 - c_skip x_t) / c_out, written so that it is finite at both ends."""
        scale = self.input_scale(t)
        clean, noisy = (
            self.schedule.sigma(t) / self.sigma_data * scale,
            self.schedule.alpha(t) * self.sigma_data * scale,
        )
        return over(clean, x_0) * x_0 - over(noisy, x_0) * eps
