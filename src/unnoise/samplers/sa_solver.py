"""SA-Solver: a stochastic Adams predictor and corrector, with as much noise as is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadOption
from ..options import option
from .base import samplers
from .multistep import OnData


@samplers.register("sa_solver")
@dataclass(frozen=True)
class SASolverSampler(OnData):
    r"""Adams' predictor and corrector with as much fresh noise as tau says: 0 none, 1 the reverse SDE. One network call a step.

    It solves the family of SDEs with the same marginals, one for each tau, on the clean data in half log-SNR.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} e^{-\tau^2 h} x_t + \sigma_s \int (1 + \tau^2)\, e^{-\tau^2 (\lambda_s - \lambda)
        + \lambda} D\, d\lambda + \sigma_s \sqrt{1 - e^{-2 \tau^2 h}}\, z

    Tau 0 is the ODE, 1 the reverse SDE. Predictor and corrector share z. The paper counts the steps that a corrector looks
    back on: its three-step corrector has order 4 here. The order is that of the ODE.

    References:
        SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models (Xue et al., 2023), Algorithm 1 and
        Equations 14 and 17, https://arxiv.org/abs/2309.05019
    """

    variants = ({}, {"tau": 0.0, "predictor_order": 2}, {"predictor_order": 2, "corrector_order": 0, "tau": 0.5})

    predictor_order: int = option(3, help="how many estimates the predictor is extrapolated from", low=1, high=3)
    corrector_order: int = option(
        4, help="how many the corrector goes through, the newest included; 0 is no corrector", low=0, high=4
    )
    tau: float = option(1.0, help="strength of the noise: 0 the ODE, 1 the reverse SDE", low=0.0, high=10.0)
    interval: tuple[float, float] = option(
        (0.0, 1.0), help="the times at whose steps noise is drawn; tau is 0 elsewhere", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval[0] > self.interval[1]:
            raise BadOption(f"interval: expected (low, high) with low at most high, got {self.interval}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether tau is above 0."""
        return self.tau > 0

    @property
    def order(self) -> int:  # type: ignore[override]
        """The corrector's, at most one more than the predictor's, and 3 for the start."""
        if not self.corrector_order:
            return self.predictor_order
        return min(self.corrector_order, self.predictor_order + 1, 3)

    @property
    def reach(self) -> int:
        """The predictor's order."""
        return self.predictor_order

    @property
    def corrected(self) -> int:
        """The corrector's order."""
        return self.corrector_order

    def speed(self, t: float) -> float:
        """See `OnData.speed`; by the time at which the step begins."""
        return self.tau**2 if self.interval[0] <= t <= self.interval[1] else 0.0
