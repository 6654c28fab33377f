"""One batch, learned again and again: what a network that cannot do this will not do with all of the data either."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import torch

from ...training.execution import begin_state
from ...training.optimizers.adamw import AdamWOptimizer
from ...training.rates import ConstantRate
from ...training.settings import TrainingSettings
from ...training.state import TrainState
from ...training.threads import threads_for
from ...training.trainee import Trainee
from ..work import Work

MOST_STEPS = 200
ENOUGH_STEPS = 50
"""Below so many, a loss that did not fall proves nothing."""
ORDINARY_RATE, ORDINARY_CLIP = 1e-3, 1.0
_SAMPLES = 16
_WARMUP = 10


@dataclass(frozen=True)
class Trial:
    """How one batch was learned.

    Args:
        losses: Before each update.
        rate: The learning rate.
        dead: Weights whose gradient was exactly 0 at every step, by name.
        broken: Weights whose gradient was not finite at some step, by name.
        norm: Of the gradient before clipping, in the middle of all steps; 0 where no step was made.
        with_ordinary_rate: The share of the loss that was left with AdamW at `ORDINARY_RATE`, clipped at `ORDINARY_CLIP` or above;
            None where that was not tried.
    """

    losses: tuple[float, ...]
    rate: float
    dead: tuple[str, ...]
    broken: tuple[str, ...]
    norm: float = 0.0
    with_ordinary_rate: float | None = None

    @property
    def left(self) -> float:
        """The share of the first loss that is left at the end: the middle one of the last five."""
        last = sorted(self.losses[-5:])
        return last[len(last) // 2] / self.losses[0] if self.losses[0] else 1.0


def overfit(work: Work, seconds: float, most: int = MOST_STEPS) -> Trial:
    """Learns one batch of at most 16 samples, with fixed times and noise, at the recipe's own learning rate.

    Where that fails, it is tried again with an ordinary optimizer and rate, to tell a bad rate from a bad network.

    Args:
        work: What is learned, of any kind; nothing of it is changed.
        seconds: For each of the two, about.
        most: Steps.

    Raises:
        BadOption: The batch does not fit in memory.
    """
    training = work.recipe.training
    found = _learn(work, training, seconds, most)
    if found.broken or len(found.losses) < ENOUGH_STEPS or found.left < 0.9 or not work.recipe.begins_anew:
        return found
    clip = max(training.clip, ORDINARY_CLIP) if training.clip else 0.0
    plain = replace(training, optimizer=AdamWOptimizer(), lr=ORDINARY_RATE, clip=clip)
    return replace(found, with_ordinary_rate=_learn(work, plain, seconds, most).left)


@dataclass(frozen=True)
class Learning:
    """Training of a few samples, before its first step.

    Args:
        trainee: What is trained.
        state: Where it stands.
    """

    trainee: Trainee
    state: TrainState


def tried(work: Work, training: TrainingSettings, most: int = MOST_STEPS) -> Learning:
    """The beginning of a run of some work that sees batches of at most 16 samples, at a rate that does not fall.

    Raises:
        BadOption: A batch does not fit in memory.
    """
    size = min(training.batch_size, _SAMPLES, len(work.train))
    settings = replace(training, batch_size=size, steps=most, warmup=_WARMUP, decay=ConstantRate(), counted_in="steps")
    machine = replace(work.recipe.machine, compile=False, cuda_graphs=False)
    trainee, device = work.trainee(), machine.torch_device()
    state = begin_state(
        trainee.network, work.input_shape, settings, machine, device, companion=trainee.companion(), whole=trainee.whole
    )
    return Learning(trainee, state)


def _learn(work: Work, training: TrainingSettings, seconds: float, most: int) -> Trial:
    learning = tried(work, training, most)
    trainee, state = learning.trainee, learning.state
    gradient, size = trainee.gradient(state), state.settings.batch_size
    batch = trainee.examples(state).until(1).step(0, next(trainee.module.parameters()).device)
    losses: list[float] = []
    norms: list[float] = []
    alive, broken = [False] * len(state.names), [False] * len(state.names)
    trainee.module.train()
    began = time.perf_counter()
    with threads_for(state.operations):
        while len(losses) < most and (len(losses) < 2 or time.perf_counter() - began < seconds):
            losses.append(float(gradient.add(batch, 1 / size).mean()))
            for i, view in enumerate(state.gradients.views):
                largest = view.abs().max()
                alive[i] = alive[i] or bool(largest != 0)
                broken[i] = broken[i] or not bool(torch.isfinite(largest))
            if any(broken):
                break
            norms.append(float(state.update()))
    return Trial(
        tuple(losses),
        training.lr,
        tuple(name for name, each in zip(state.names, alive, strict=True) if not each),
        tuple(name for name, each in zip(state.names, broken, strict=True) if each),
        statistics.median(norms) if norms else 0.0,
    )
