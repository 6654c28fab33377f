"""Velocity prediction: the network is the right-hand side of the ODE, as in flow matching."""

from torch import Tensor

from ..shapes import over
from .base import Coefficients, PreconditionedDenoiser, denoisers


@denoisers.register("velocity")
class VelocityDenoiser(PreconditionedDenoiser):
    r"""The network predicts how the noisy data moves in time, as flow matching does.

    .. math:: \dot\alpha x_0 + \dot\sigma \varepsilon

    Solved for the clean data, :math:`x_0 = (\dot\sigma x_t - \sigma F) / (\alpha \dot\sigma - \dot\alpha \sigma)`; the bottom
    is positive wherever the log-SNR falls.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """sigma_dot and -sigma over the bottom, unit variance, noise level."""
        schedule = self.schedule
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        alpha_dot, sigma_dot = schedule.alpha_dot(t), schedule.sigma_dot(t)
        bottom = alpha * sigma_dot - alpha_dot * sigma
        return Coefficients(sigma_dot / bottom, -sigma / bottom, self.input_scale(t), schedule.noise_level(t))

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """alpha_dot x_0 + sigma_dot eps."""
        return over(self.schedule.alpha_dot(t), x_0) * x_0 + over(self.schedule.sigma_dot(t), x_0) * eps
