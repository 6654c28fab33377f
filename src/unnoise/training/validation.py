"""A validation loss that is a number, not a dice roll: fixed samples, fixed noise, times spread evenly over their density."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.base import Codec
from ..data.base import Dataset
from ..denoisers.base import Condition, Denoiser
from ..denoisers.oracle import DatasetOracle
from ..objectives.base import Draws, Objective
from ..objectives.pairing import optimal_pairs
from ..randomness import address, uniform
from .captions import Captions, whole_condition
from .draws import noise_like, who_recalls
from .parallel import ALONE, Processes
from .trainee import Strata as Strata

STRATA = 16
MOST_FLOOR_TRIPLES = 2**16
MOST_FLOOR_WORK = 2**33  # numbers of the data times triples: a few seconds on two cores
MOST_FLOOR_NUMBERS = 2**23  # of the triples' noise, drawn in a second: where a sample has many, few samples are enough


class Validation:
    """The fixed (sample, time, noise) triples of a run.

    Times are the middles of equal shares of the objective's own density, dealt out over the samples in a fixed order; every
    triple keeps its condition. Noise is as the objective makes it, with an offset or paired with the data, but for perturbation
    of the input, which is a means of training; an adaptive density is the one underneath.

    Args:
        dataset: Where the samples come from.
        codec: The way into the model's space.
        denoiser: Gives the schedule and the null condition.
        objective: Gives the density of times, and the loss.
        size: How many triples.
        seed: Which.
        captions: How captions are read, where they are learned: the first of each sample is asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        codec: Codec,
        denoiser: Denoiser,
        objective: Objective,
        size: int,
        seed: int = 0,
        captions: Captions | None = None,
    ) -> None:
        size = max(size // STRATA, 1) * STRATA
        picks = np.argsort(uniform(address(seed, "validation"), range(len(dataset)))[:, 0], kind="stable")
        data = dataset.take(torch.from_numpy(np.resize(picks, size)))
        x_0 = codec.encode(data.x)
        eps = noise_like(objective.noise, seed, "validation noise", np.arange(size, dtype=np.int64), x_0)
        for group in torch.arange(size).split(objective.noise.pairing) if objective.noise.pairing > 1 else ():
            eps[group] = eps[group[optimal_pairs(x_0[group], eps[group])]]
        # Sample i stands in stratum i mod STRATA, at the i-th share of it, so that any number of samples covers all times.
        i = torch.arange(size, dtype=torch.float64)
        per_stratum = size // STRATA
        u = ((i % STRATA) + ((i // STRATA) + 0.5) / per_stratum) / STRATA
        cond = whole_condition(data, captions, denoiser)
        self.data = data
        recalls = who_recalls(seed, np.arange(size, dtype=np.int64)) if denoiser.self_conditioned else None
        self.draws = Draws(x_0, eps, objective.times.quantile(u, denoiser.schedule), cond, recalls=recalls)
        self.denoiser, self.objective = denoiser, objective

    def _strata(self, losses: Tensor) -> Strata:
        table = losses.double().reshape(-1, STRATA).mean(0)
        middle = self.draws.t.reshape(-1, STRATA).mean(0)
        return Strata(float(table.mean()), tuple(table.tolist()), tuple(middle.tolist()))

    @torch.no_grad()
    def loss(self, module: nn.Module, batch_size: int = 256, processes: Processes = ALONE) -> Strata:
        """The loss of a denoiser on the triples; see `Validating.loss`."""
        assert isinstance(module, Denoiser)
        prepared = self.objective.prepare(module, self.draws).to(next(module.parameters()).device)

        def losses(rows: slice) -> Tensor:
            return self.objective.losses(module, prepared.slice(rows.start, rows.stop))

        return self._strata(shared_out(losses, module, len(prepared.inputs), batch_size, processes))

    @torch.no_grad()
    def floor(self, oracle: Denoiser, cond: Condition | None = None) -> Strata:
        """The loss that another denoiser has on the triples, as large as the denoiser's own would be for the same estimates.

        Args:
            oracle: Where it is exact for the data that the triples come from, no model can have a lower loss on average.
            cond: What it is asked for; by default what the denoiser is.
        """
        draws = self.draws if cond is None else self.draws._replace(cond=cond)
        parts = []
        for i in range(0, len(draws.x_0), 512):
            parts.append(self.objective.floors(self.denoiser, oracle, draws.take(slice(i, i + 512))))
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
        None where it would take too long, the objective's noise is not the plain noise of the process, or a part of its loss has
        no floor that is known.
    """
    if not (objective.noise.plain and objective.has_floor):
        return None
    each = dataset.x[0].numel()
    numbers = len(dataset) * each
    if numbers * size > MOST_FLOOR_WORK * 8:
        return None
    size = max(size, min(MOST_FLOOR_TRIPLES, MOST_FLOOR_WORK // numbers, MOST_FLOOR_NUMBERS // each))
    oracle = training_oracle(dataset, codec, denoiser)
    return Validation(dataset, codec, denoiser, objective, size, seed).floor(oracle)


def training_oracle(dataset: Dataset, codec: Codec, denoiser: Denoiser) -> DatasetOracle:
    """The exact denoiser of a training set, in the model's space and on its schedule."""
    return DatasetOracle(codec.encode(dataset.x), denoiser.schedule, dataset.labels, dataset.spec.num_classes or None)


def shared_out(
    work: Callable[[slice], Tensor], module: nn.Module, size: int, batch_size: int, processes: Processes
) -> Tensor:
    """Numbers about samples that processes work out a batch each in turn, with a module as it is outside of training.

    Args:
        work: Gives the numbers of some samples, shape (n, ...).
        module: What it asks; as before afterwards.
        size: How many samples there are.
        batch_size: Samples at once.
        processes: That all call this.

    Returns:
        Shape (size, ...), float64, on the processor: not every GPU has such numbers.
    """
    training = module.training
    module.eval()
    whole: Tensor | None = None
    starts = range(0, size, batch_size)
    for turn in range(0, len(starts), processes.count):
        mine = turn + processes.rank
        # Where nothing is left to do the first batch is worked on again: sharded networks work in all processes or none.
        first = starts[mine] if mine < len(starts) else 0
        found = work(slice(first, min(first + batch_size, size))).cpu().double()
        if whole is None:
            whole = torch.zeros(size, *found.shape[1:], dtype=torch.float64)
        if mine < len(starts):
            whole[first : first + batch_size] = found
    module.train(training)
    assert whole is not None
    return processes.add(whole)
