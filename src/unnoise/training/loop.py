"""The training loop: a generator of events. Whoever iterates logs, draws, saves and stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codecs.base import Codec
from ..data.base import AnyDataset
from ..denoisers.base import Denoiser
from ..errors import TrainingDiverged
from ..objectives.base import Objective
from ..objectives.mse import preconditioned
from ..randomness import address, torch_seeded
from .draws import DrawStream
from .settings import TrainingSettings
from .state import Averaged, TrainState
from .validation import Strata, Validation, bayes_floor, training_oracle


@dataclass(frozen=True)
class Stepped:
    """One update was made. `step` counts updates; `loss` is a 0-dimensional tensor, read only when it is wanted."""

    step: int
    loss: Tensor
    learning_rate: float


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


Event = Stepped | Validated | SamplesDue | CheckpointDue | Finished


@dataclass
class Trainee:
    """What is trained on what.

    Args:
        denoiser: Whose network is trained.
        objective: What it learns.
        codec: The way into the model's space.
        train: The training data.
        held_out: Data for validation; empty to validate on the training data.
        seed: Of data order, times, noise and condition dropout.
    """

    denoiser: Denoiser
    objective: Objective
    codec: Codec
    train: AnyDataset
    held_out: AnyDataset
    seed: int


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
    """
    settings, denoiser, objective = state.settings, trainee.denoiser, trainee.objective
    if state.step >= settings.steps:
        yield Finished(state.step, stopped=False)
        return
    device = next(denoiser.parameters()).device
    stream = DrawStream(trainee.train, trainee.codec, denoiser, objective, settings.batch_size, trainee.seed)
    validation, floor = _validation(trainee, settings)
    network = preconditioned(denoiser)
    if state.step == 0:
        yield _validated(validation, denoiser, state, floor)
    network.train()
    while state.step < settings.steps:
        batch = stream.step(state.step, device)
        with torch_seeded(address(trainee.seed, "network", state.step), device):  # what a network drops
            loss = objective.losses(denoiser, batch).mean()
        loss.backward()
        learning_rate = settings.learning_rate(state.step)
        state.update()
        step = state.step
        last = step == settings.steps
        if (step % settings.log_every == 0 or last) and not bool(torch.isfinite(loss)):
            raise _diverged(f"the loss is {float(loss.detach())}", step, settings)
        yield Stepped(step, loss.detach(), learning_rate)
        if step % settings.validate_every == 0 or last:
            yield _validated(validation, denoiser, state, floor)
        stopping = not last and stop()
        if step % settings.checkpoint_every == 0 or last or stopping:
            if not state.finite():  # they would take the place of a checkpoint and a model that are good
                raise _diverged("some weights are not finite", step, settings)
            yield CheckpointDue(step)
        if settings.sample_every and (step % settings.sample_every == 0 or last):
            yield SamplesDue(step)
        if stopping:
            yield Finished(step, stopped=True)
            return
    yield Finished(state.step, stopped=False)


def _diverged(what: str, step: int, settings: TrainingSettings) -> TrainingDiverged:
    return TrainingDiverged(
        f"{what} at step {step}: lower training.lr (now {settings.lr:g}), raise training.warmup, or look at the data with "
        "`unnoise data`"
    )


def _validation(trainee: Trainee, settings: TrainingSettings) -> tuple[Validation, Strata | None]:
    parts = trainee.codec, trainee.denoiser, trainee.objective, settings.validation_size, trainee.seed
    train = trainee.train.part(settings.validation_size)
    floor = bayes_floor(train, *parts) if train is trainee.train else None  # only who knows all of the data knows it
    if len(trainee.held_out):
        return Validation(trainee.held_out.part(settings.validation_size), *parts), floor
    validation = Validation(train, *parts)
    if floor is not None:
        # By time on the very triples of the validation loss, so that what both owe to chance cancels in their difference.
        own = validation.floor(training_oracle(train, trainee.codec, trainee.denoiser))
        floor = Strata(floor.loss, own.by_time, own.t)
    return validation, floor


def _validated(validation: Validation, denoiser: Denoiser, state: TrainState, floor: Strata | None) -> Validated:
    with Averaged(state):
        return Validated(state.step, validation.loss(denoiser), floor)
