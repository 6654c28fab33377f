"""DPM-Solver++ of third order, multistep: the estimate is extrapolated in log-SNR from the last three steps."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import option
from .base import samplers
from .multistep import OnData


@samplers.register("dpmpp_3m")
@dataclass(frozen=True)
class DPMSolverPP3MSampler(OnData):
    r"""DPM-Solver++ with the two steps before (3M): third order, one network call a step.

    The estimate is the parabola in :math:`\lambda = \ln(\alpha / \sigma)` through its last three values, integrated exactly
    whatever the distances are. The rules of this name in k-diffusion and diffusers differ in three ways: they give the second
    difference half the weight of that integral, and begin with a step of Euler's rule, each of which leaves them at second
    order (here the second step corrects the first); and they take the parabola whatever the step, where one too long for it
    takes two estimates here, or one. Steps from pure noise and to clean data are of first order.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022), Equation 14 and,
        for the stochastic form, Appendix A, https://arxiv.org/abs/2211.01095
        The noise of any strength: SA-Solver (Xue et al., 2023), Equation 5, https://arxiv.org/abs/2309.05019
    """

    variants = ({}, {"sde": True})
    order = 3
    reach = 3

    sde: bool = option(False, help="solve the reverse SDE instead of the ODE, drawing fresh noise")
    eta: float = option(1.0, help="noise of the SDE: 0 is the ODE again, 1 the process reversed", low=0.0, high=10.0)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether the SDE is solved."""
        return self.sde and self.eta > 0

    def speed(self, t: float) -> float:
        """See `OnData.speed`."""
        return self.eta if self.sde else 0.0
