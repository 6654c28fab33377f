"""Score prediction: the gradient of the log-density of noisy data."""

from torch import Tensor

from ..shapes import over
from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("score")
class ScoreDenoiser(PreconditionedDenoiser):
    r"""The network predicts the score: the gradient of the log-density of the noisy data.

    The clean data is then :math:`x_0 = (x_t + \sigma^2 F) / \alpha` (Tweedie).

    Its target, :math:`-\varepsilon / \sigma`, grows without bound near clean data: train it with a weighting such as `snr`,
    which is :math:`\sigma^2` here.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), Equation 7,
        https://arxiv.org/abs/2011.13456
    """

    needs_signal = True

    def coefficients(self, t: Tensor) -> Coefficients:
        """1 / alpha, sigma^2 / alpha, unit variance, noise level."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return Coefficients(1 / alpha, sigma**2 / alpha, self.input_scale(t), self.schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """-eps / sigma."""
        return -eps / over(self.schedule.sigma(t), x_0)
