"""The training loop: a generator of events. Whoever iterates logs, draws, saves and stops."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError, IncompatibleParts, TrainingDiverged
from ..objectives.companion import weighed
from ..objectives.examples import Prepared
from .batch import accumulated, show
from .lookout import Broken, Lookout, Made
from .memory import enough_for, most_at_once
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
    """The loss, its gradient or a weight is no longer a number.

    Whoever iterates may bring the state back to an earlier step, and the run goes on from there; if the state stays where
    it is, the run ends with `TrainingDiverged`.

    Args:
        step: The first one that went wrong.
        what: What is known of it.
        seen: Updates made when that was seen: the same step on a processor, up to a logged one later elsewhere.
    """

    step: int
    what: str
    seen: int


@dataclass(frozen=True)
class Validated:
    """The validation loss of the averaged model, and the Bayes floor of the training data where it can be worked out."""

    step: int
    loss: Strata
    floor: Strata | None


@dataclass(frozen=True)
class Working:
    """Something that is no step begins, and may take a while.

    Args:
        step: Updates made so far.
        what: It in a word or two, such as "validating"; empty where the steps go on.
    """

    step: int
    what: str


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


Event = Stepped | Diverged | Working | Validated | SamplesDue | CheckpointDue | Finished


def train(
    trainee: Trainee,
    state: TrainState,
    stop: Callable[[], bool] = lambda: False,
    used: Callable[[int], bool] = lambda _: False,
) -> Iterator[Event]:
    """Trains until all steps are made or `stop` says so.

    Args:
        trainee: What is trained on what.
        state: Where the run stands; it is changed in place.
        stop: Asked after every step.
        used: Whether something else is made of the weights after a step, so that they must be known to be numbers.

    Yields:
        Events; before `Finished` there is always a `CheckpointDue`.

    Raises:
        TrainingDiverged: The loss, its gradient or a weight is no longer a number; no checkpoint is made of such weights.
        IncompatibleParts: The state was made without what the objective keeps beside the network.
        DataError: The data cannot be read any more, or a worker that reads it ended, in one of the processes: all raise it, after
            a `CheckpointDue` where steps were made.
        OutOfMemory: The memory does not suffice for as many samples at once as there are.
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
    yield Working(state.step, "preparing")  # above all the Bayes floor of the validation
    device = next(module.parameters()).device
    share, largest = processes.share(settings.batch_size), max(processes.shares(settings.batch_size))
    examples = trainee.examples(state).until(settings.steps)
    stream = PrefetchedStream(examples, workers_for(trainee.workers, examples.dataset, processes), processes)
    lookout, begun = Lookout(state, examples, device), state.step
    validation, floor = trainee.validation(settings, processes)
    gradient = trainee.gradient(state)
    module.train()
    yield Working(state.step, "")
    while state.step < settings.steps:
        if state.step == 0:  # also where a run went back to its beginning
            yield from _validated(validation, trainee, state, floor)
        batch = yield from _read(stream, state, lookout, state.step > begun)
        logged = (state.step + 1) % settings.log_every == 0 or state.step + 1 == settings.steps
        measure = logged and not trainee.whole
        with enough_for(most_at_once(largest, trainee.micro_batch, measure), trainee.whole):
            losses, part = accumulated(gradient, batch, share[0], trainee.micro_batch, measure)
        show(state, losses, batch, share[0])
        learning_rate = state.learning_rate
        norm = state.update()
        loss, norm = _of_all(weighed(losses, batch).sum() / settings.batch_size, norm, processes)
        step = state.step
        last = step == settings.steps
        lookout.keep(Made(step, loss, norm, losses, batch.draws.t))
        if (lookout.full or _due(step, settings) or used(step)) and (yield from _went_back(lookout.look(), state)):
            continue
        yield Stepped(step, loss, learning_rate, norm, _norms(part, norm, settings.batch_size), stream.waiting)
        if step % settings.validate_every == 0 or last:
            yield from _validated(validation, trainee, state, floor)
        stopping = not last and _asked_to_stop(stop, step, processes, device)
        if step % settings.checkpoint_every == 0 or last or stopping:
            # Weights that are no numbers would take the place of a checkpoint and a model that are good.
            broken = lookout.look() or (None if state.finite() else Broken(step, "some weights are not finite"))
            if (yield from _went_back(broken, state)):
                continue
            yield CheckpointDue(step)
        if settings.sample_every and (step % settings.sample_every == 0 or last):
            yield Working(step, "drawing samples")
            yield SamplesDue(step)
        if stopping:
            yield Finished(step, stopped=True)
            return
    yield Finished(state.step, stopped=False)


def _read(
    stream: PrefetchedStream, state: TrainState, lookout: Lookout, made: bool
) -> Generator[CheckpointDue, None, Prepared]:
    """The examples of the next step; where a process cannot read its own, all of them save what was `made`, and end."""
    try:
        return stream.step(state.step, lookout.device)
    except DataError:
        if made and lookout.look() is None and state.finite():
            yield CheckpointDue(state.step)
        state.processes.wait()  # who ends has the others ended, and the first one may still be writing
        raise


def _of_all(loss: Tensor, norm: Tensor, processes: Processes) -> tuple[Tensor, Tensor]:
    """The loss of the whole batch, and the norm of its gradient, which is no number in all processes where it is none in one."""
    if processes.count == 1:
        return loss, norm
    loss, sound = processes.add(torch.stack([loss, 0 * norm.to(loss)]))
    return loss, norm + sound.to(norm)


def _due(step: int, settings: TrainingSettings) -> bool:
    """Whether a step is written down, or something is made of its weights."""
    every = (settings.log_every, settings.validate_every, settings.checkpoint_every, settings.sample_every)
    return (
        step == settings.steps
        or any(each and step % each == 0 for each in every)
        or settings.snapshots.due(step, settings.steps)
    )


def _went_back(broken: Broken | None, state: TrainState) -> Generator[Diverged, None, bool]:
    """Tells of a step that went wrong, where one did.

    Returns:
        Whether the state was brought back to an earlier step.

    Raises:
        TrainingDiverged: It stays where it is.
    """
    if broken is None:
        return False
    seen = state.step
    yield Diverged(broken.step, broken.what, seen)
    if state.step == seen:
        raise TrainingDiverged(
            f"{broken.what} at step {broken.step}: lower training.lr (now {state.settings.lr:g}), raise training.warmup, or "
            "ask `unnoise doctor`"
        )
    return True


def _norms(part: tuple[float, Tensor] | None, norm: Tensor, whole: int) -> GradientNorms | None:
    return None if part is None else GradientNorms(part[0], float(part[1]), whole, float(norm) ** 2)


def _asked_to_stop(stop: Callable[[], bool], step: int, processes: Processes, device: torch.device) -> bool:
    if processes.count == 1:
        return stop()
    return step % STOP_EVERY == 0 and processes.any(stop(), device)


def _validated(
    validation: Validating, trainee: Trainee, state: TrainState, floor: Strata | None
) -> Iterator[Working | Validated]:
    yield Working(state.step, "validating")
    most = min(trainee.micro_batch or MOST_VALIDATED, MOST_VALIDATED)
    with enough_for(min(most, state.settings.validation_size), trainee.whole), Averaged(state):
        found = Validated(state.step, validation.loss(trainee.module, most, state.processes), floor)
    yield found
