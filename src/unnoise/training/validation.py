"""A validation loss that is a number, not a dice roll: fixed samples, fixed noise, times spread evenly over their density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..codecs.base import Codec
from ..data.base import Dataset
from ..denoisers.base import Denoiser
from ..denoisers.oracle import DatasetOracle
from ..objectives.base import Draws, Objective
from ..randomness import address, normal_like, uniform

STRATA = 16
MOST_FLOOR_TRIPLES = 2**16
MOST_FLOOR_WORK = 2**33  # numbers of the data times triples: a few seconds on two cores


@dataclass(frozen=True)
class Strata:
    """A loss, by time.

    Args:
        loss: The mean over all triples.
        by_time: The mean within each of the strata of time, from low to high noise.
        t: The middle time of each stratum.
    """

    loss: float
    by_time: tuple[float, ...]
    t: tuple[float, ...]


class Validation:
    """The fixed (sample, time, noise) triples of a run.

    Times are the middles of equal shares of the objective's own density, dealt out over the samples in a fixed order; every
    triple keeps its condition.

    Args:
        dataset: Where the samples come from.
        codec: The way into the model's space.
        denoiser: Gives the schedule and the null condition.
        objective: Gives the density of times, and the loss.
        size: How many triples.
        seed: Which.
    """

    def __init__(
        self, dataset: Dataset, codec: Codec, denoiser: Denoiser, objective: Objective, size: int, seed: int = 0
    ) -> None:
        size = max(size // STRATA, 1) * STRATA
        picks = np.argsort(uniform(address(seed, "validation"), range(len(dataset)))[:, 0], kind="stable")
        data = dataset.take(torch.from_numpy(np.resize(picks, size)))
        x_0 = codec.encode(data.x)
        eps = normal_like(address(seed, "validation noise"), range(size), x_0)
        # Sample i stands in stratum i mod STRATA, at the i-th share of it, so that any number of samples covers all times.
        i = torch.arange(size, dtype=torch.float64)
        per_stratum = size // STRATA
        u = ((i % STRATA) + ((i // STRATA) + 0.5) / per_stratum) / STRATA
        cond = None if data.labels is None else {"label": data.labels}
        self.draws = Draws(x_0, eps, objective.times.quantile(u, denoiser.schedule), cond)
        self.denoiser, self.objective = denoiser, objective

    def _strata(self, losses: Tensor) -> Strata:
        table = losses.double().reshape(-1, STRATA).mean(0)
        middle = self.draws.t.reshape(-1, STRATA).mean(0)
        return Strata(float(table.mean()), tuple(table.tolist()), tuple(middle.tolist()))

    @torch.no_grad()
    def loss(self, denoiser: Denoiser, batch_size: int = 256) -> Strata:
        """The loss of a denoiser on the triples."""
        device = next(denoiser.parameters()).device
        training = denoiser.training
        denoiser.eval()
        prepared = self.objective.prepare(denoiser, self.draws).to(device)
        size = len(prepared.inputs)
        parts = [
            self.objective.losses(denoiser, prepared.slice(i, i + batch_size)).cpu() for i in range(0, size, batch_size)
        ]
        denoiser.train(training)
        return self._strata(torch.cat(parts))

    @torch.no_grad()
    def floor(self, oracle: Denoiser) -> Strata:
        """The loss that a denoiser which needs no training has on the triples.

        Args:
            oracle: Exact for the data that the triples come from; then no model can have a lower loss on average.
        """
        parts = []
        for i in range(0, len(self.draws.x_0), 256):
            d = self.draws
            cond = None if d.cond is None else {name: value[i : i + 256] for name, value in d.cond.items()}
            part = Draws(d.x_0[i : i + 256], d.eps[i : i + 256], d.t[i : i + 256], cond)
            parts.append(self.objective.floors(self.denoiser, oracle, part))
        return self._strata(torch.cat(parts))


def bayes_floor(
    dataset: Dataset, codec: Codec, denoiser: Denoiser, objective: Objective, size: int, seed: int = 0
) -> Strata | None:
    """The loss below which no model can come on average over a finite training set.

    It is a mean over as many random triples as a few seconds allow, so its own error is small beside the gap of a model.

    Args:
        dataset: The training data.
        codec: The way into the model's space.
        denoiser: Gives the schedule and the prediction.
        objective: Gives the density of times, and the loss.
        size: At least so many triples.
        seed: Which.

    Returns:
        None where it would take too long.
    """
    numbers = len(dataset) * dataset.x[0].numel()
    if numbers * size > MOST_FLOOR_WORK * 8:
        return None
    size = max(size, min(MOST_FLOOR_TRIPLES, MOST_FLOOR_WORK // numbers))
    oracle = training_oracle(dataset, codec, denoiser)
    return Validation(dataset, codec, denoiser, objective, size, seed).floor(oracle)


def training_oracle(dataset: Dataset, codec: Codec, denoiser: Denoiser) -> DatasetOracle:
    """The exact denoiser of a training set, in the model's space and on its schedule."""
    return DatasetOracle(codec.encode(dataset.x), denoiser.schedule, dataset.labels, dataset.spec.num_classes or None)
