"""What guidance does where everything is known: two normal distributions on a line, of which one is asked for.

Half of the data is N(-1, 1/4) and half N(1, 1/4); the class at 1 is wanted. Guidance above 1 drives samples beyond its centre and
closer together, which in pictures is called oversaturated and all alike. Here both are numbers. On a line, some rules have
nothing to tell apart; beside it there may be more coordinates, N(0, 1/4) whatever the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoisers.oracle import GaussianMixtureOracle
from ..guidance.base import Guidance, Guided
from ..guidance.noisy_classifier import Classifier
from ..process.base import Schedule
from ..process.linear import LinearSchedule
from ..randomness import NoiseSource
from ..samplers.base import Sampler, sample
from ..samplers.ddim import DDIMSampler
from ..samplers.grids import GridSpec, make_grid

CENTRE, STD = 1.0, 0.5


@dataclass(frozen=True)
class Landing:
    """Where guided samples end, along the line of the classes.

    Args:
        mean: The class has 1.
        std: The class has 1/2.
    """

    mean: float
    std: float

    @property
    def overshoot(self) -> float:
        """How far the mean lies beyond the centre of the class."""
        return self.mean - CENTRE

    @property
    def spread(self) -> float:
        """The standard deviation, as a share of that of the class."""
        return self.std / STD


def two_classes(schedule: Schedule | None = None, std: float = STD, others: int = 0) -> GaussianMixtureOracle:
    """The exact denoiser of both classes.

    Args:
        schedule: That of DDPM by default.
        std: Of each class; larger for a model that sees the data blurred.
        others: Coordinates that say nothing of the class.
    """
    one = torch.ones(2, dtype=torch.float64)
    means = torch.zeros(2, 1 + others, dtype=torch.float64)
    means[:, 0] = torch.tensor([-CENTRE, CENTRE])
    return GaussianMixtureOracle(means, std * one, one, schedule or LinearSchedule(), (0, 1))


class ExactClassifier(Classifier):
    """The probabilities of the labels of a mixture, by Bayes' rule.

    Args:
        oracle: With labels.
    """

    def __init__(self, oracle: GaussianMixtureOracle) -> None:
        super().__init__(tuple(str(label) for label in range(oracle.num_classes)))
        self.oracle = oracle

    def forward(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """See `Classifier.forward`; the schedule is that of the oracle."""
        assert self.oracle.owner is not None
        joint = []
        for label in range(self.oracle.num_classes):
            share = self.oracle.log_weights[self.oracle.owner == label].logsumexp(0)
            joint.append(share + self.oracle.log_prob(x_t, t, {"label": torch.full((len(x_t),), label)}))
        return torch.stack(joint, 1).log_softmax(1)


def land(
    rule: Guidance,
    oracle: GaussianMixtureOracle | None = None,
    *,
    sampler: Sampler | None = None,
    steps: int = 1000,
    grid: GridSpec = "uniform",
    starts: int = 1001,
) -> Landing:
    """Where samples of the class at 1 end under a guidance rule.

    On a line the flow keeps the order of its starts, so that even quantiles of the starting noise stand for draws of it. Other
    coordinates are drawn.

    Args:
        rule: How they are guided.
        oracle: That of `two_classes` by default.
        sampler: Deterministic; DDIM by default.
        steps: From noise to data.
        grid: At which times.
        starts: How many samples.
    """
    oracle = oracle or two_classes()
    u = (torch.arange(starts, dtype=torch.float64) + 0.5) / starts
    line = math.sqrt(2) * torch.erfinv(2 * u - 1)[:, None]
    x = torch.cat([line, NoiseSource(0, range(starts)).start((oracle.means.shape[1] - 1,), torch.float64)], dim=1)
    times = make_grid(grid, steps, oracle.schedule, sigma_data=oracle.sigma_data)
    cond = {"label": torch.ones(starts, dtype=torch.int64)}
    end = sample(
        sampler or DDIMSampler(), Guided(oracle, rule), float(oracle.schedule.sigma(times[0])) * x, times, cond=cond
    )
    return Landing(float(end[:, 0].mean()), float(end[:, 0].std()))
