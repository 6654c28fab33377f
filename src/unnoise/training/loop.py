"""The training loop: a generator of events. Whoever iterates logs, draws, saves and stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import IncompatibleParts, TrainingDiverged
from ..objectives.companion import weighed
from .batch import accumulated, broken, show
from .noise_scale import GradientNorms
from .parallel import STOP_EVERY, Processes
from .prefetch import PrefetchedStream, workers_for
from .settings import TrainingSettings
from .state import Averaged, TrainState
from .trainee import Strata, Trainee, Validating

MOST_VALIDATED = 256
"""Samples that go through the network at once when it is validated, unless a step takes fewer."""


@dataclass(frozen=True)
class Stepped:
    """One update was made. Tensors are read only when they are wanted: on a GPU that waits for it.

    Args:
        step: Updates made so far.
        loss: Mean over the batch, 0-dimensional.
        learning_rate: Of the update.
        gradient_norm: Before clipping, 0-dimensional.
        norms: Of a part and of the whole batch, at steps that are logged; see `GradientNoiseScale`.
        waiting: The share of the time so far in which the loop waited for examples.
    """

    step: int
    loss: Tensor
    learning_rate: float
    gradient_norm: Tensor
    norms: GradientNorms | None = None
    waiting: float = 0.0


@dataclass(frozen=True)
class Diverged:
    """The loss or a weight is no longer a number.

    Whoever iterates may bring the state back to an earlier step, and the run goes on from there; if the state stays where
    it is, the run ends with `TrainingDiverged`.
    """

    step: int
    what: str


@dataclass(frozen=True)
class Validated:
    """The validation loss of the averaged model, and the Bayes floor of the training data where it can be worked out."""

    step: int
    loss: Strata
    floor: Strata | None


@dataclass(frozen=True)
class SamplesDue:
    """It is time to draw samples of the averaged model."""

    step: int


@dataclass(frozen=True)
class CheckpointDue:
    """It is time to save the state."""

    step: int


@dataclass(frozen=True)
class Finished:
    """The last event: all steps are made, or the run was asked to stop."""

    step: int
    stopped: bool


Event = Stepped | Diverged | Validated | SamplesDue | CheckpointDue | Finished


def train(trainee: Trainee, state: TrainState, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Trains until all steps are made or `stop` says so.

    Args:
        trainee: What is trained on what.
        state: Where the run stands; it is changed in place.
        stop: Asked after every step.

    Yields:
        Events; before `Finished` there is always a `CheckpointDue`.

    Raises:
        TrainingDiverged: The loss or a weight is no longer a number; no checkpoint is made of such weights.
        IncompatibleParts: The state was made without what the objective keeps beside the network.
        DataError: The data cannot be read any more, or a worker that reads it ended; the state is that of the step before.
    """
    settings, module, processes = state.settings, trainee.module, state.processes
    if state.step >= settings.steps:
        yield Finished(state.step, stopped=False)
        return
    if set(state.companion.tensors()) != set(trainee.companion().tensors()):
        raise IncompatibleParts(
            "the objective keeps something beside the network that the state does not hold: make it as "
            "TrainState(..., companion=objective.companion(schedule))"
        )
    device = next(module.parameters()).device
    share = processes.share(settings.batch_size)
    examples = trainee.examples(state)
    stream = PrefetchedStream(examples, workers_for(trainee.workers, examples.dataset, processes))
    validation, floor = trainee.validation(settings, processes)
    most = min(trainee.micro_batch or MOST_VALIDATED, MOST_VALIDATED)
    gradient = trainee.gradient(state)
    module.train()
    while state.step < settings.steps:
        if state.step == 0:  # also where a run went back to its beginning
            yield _validated(validation, module, state, floor, most)
        batch = stream.step(state.step, device)
        logged = (state.step + 1) % settings.log_every == 0 or state.step + 1 == settings.steps
        losses, part = accumulated(gradient, batch, share[0], trainee.micro_batch, measure=logged and not trainee.whole)
        show(state, losses, batch, share[0])
        learning_rate = state.learning_rate
        norm = state.update()
        loss = processes.add(weighed(losses, batch).sum() / settings.batch_size)
        step = state.step
        last = step == settings.steps
        if (logged or device.type == "cpu") and not math.isfinite(loss):
            numbers = stream.stream.numbers(step - 1)
            what = broken(float(loss), losses, batch, numbers, processes, settings.batch_size)
            yield Diverged(step, what)
            if state.step == step:
                raise _diverged(what, step, settings)
            continue
        yield Stepped(step, loss, learning_rate, norm, _norms(part, norm, settings.batch_size), stream.waiting)
        if step % settings.validate_every == 0 or last:
            yield _validated(validation, module, state, floor, most)
        stopping = not last and _asked_to_stop(stop, step, processes, device)
        if step % settings.checkpoint_every == 0 or last or stopping:
            if not state.finite():  # they would take the place of a checkpoint and a model that are good
                yield Diverged(step, "some weights are not finite")
                if state.step == step:
                    raise _diverged("some weights are not finite", step, settings)
                continue
            yield CheckpointDue(step)
        if settings.sample_every and (step % settings.sample_every == 0 or last):
            yield SamplesDue(step)
        if stopping:
            yield Finished(step, stopped=True)
            return
    yield Finished(state.step, stopped=False)


def _norms(part: tuple[float, Tensor] | None, norm: Tensor, whole: int) -> GradientNorms | None:
    return None if part is None else GradientNorms(part[0], float(part[1]), whole, float(norm) ** 2)


def _asked_to_stop(stop: Callable[[], bool], step: int, processes: Processes, device: torch.device) -> bool:
    if processes.count == 1:
        return stop()
    return step % STOP_EVERY == 0 and processes.any(stop(), device)


def _diverged(what: str, step: int, settings: TrainingSettings) -> TrainingDiverged:
    return TrainingDiverged(
        f"{what} at step {step}: lower training.lr (now {settings.lr:g}), raise training.warmup, or ask "
        "`unnoise doctor`"
    )


def _validated(
    validation: Validating, module: nn.Module, state: TrainState, floor: Strata | None, most: int
) -> Validated:
    with Averaged(state):
        return Validated(state.step, validation.loss(module, most, state.processes), floor)
