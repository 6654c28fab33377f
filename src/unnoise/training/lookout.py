"""Whether what a run works out are still numbers: the first step whose loss or gradient is none, and what is known of its batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .settings import TrainingSettings
from .state import TrainState
from .stream import ExampleStream

MOST_UNSEEN = 100
"""Steps of which something is kept at most, where they are not looked at one by one."""


def most_unseen(device: torch.device, settings: TrainingSettings) -> int:
    """Steps that are made from one look to the next: one on a processor; elsewhere a look waits for the device.

    Args:
        device: That trains.
        settings: Of the run.
    """
    return 1 if device.type == "cpu" else min(settings.log_every, MOST_UNSEEN)


class Made(NamedTuple):
    """What is kept of a step until it is looked at.

    Args:
        step: Updates made, this one among them.
        loss: Mean over the batch of all processes, 0-dimensional.
        norm: Of the gradient before clipping, 0-dimensional; like the loss, it is a number in all processes or in none.
        losses: Of this process's samples, shape (B,).
        t: Their times, shape (B,); all 0 for what has none.
    """

    step: int
    loss: Tensor
    norm: Tensor
    losses: Tensor
    t: Tensor


class Broken(NamedTuple):
    """A step whose loss or gradient is no number.

    Args:
        step: Updates made, this one among them.
        what: What is known of it.
    """

    step: int
    what: str


class Lookout:
    """Keeps what is needed of every step since the last look without waiting for a device, and finds the first that went wrong.

    Args:
        state: Of the run.
        stream: Where its batches come from.
        device: That trains.
    """

    def __init__(self, state: TrainState, stream: ExampleStream, device: torch.device) -> None:
        self.state, self.stream, self.device = state, stream, device
        self.most = most_unseen(device, state.settings)
        self._unseen: list[Made] = []

    def keep(self, made: Made) -> None:
        """Keeps a step for the next look."""
        self._unseen.append(made)

    @property
    def full(self) -> bool:
        """Whether it is time to look, whatever else happens."""
        return len(self._unseen) >= self.most

    def look(self) -> Broken | None:
        """The first step since the last look that is no number; all processes call this."""
        steps, self._unseen = self._unseen, []
        made = _first_broken(steps)
        return None if made is None else Broken(made.step, self._told(made))

    def _told(self, made: Made) -> str:
        """What is known of a broken step: the samples that have no loss, or else the one whose loss is largest."""
        whole, (first, last) = self.state.settings.batch_size, self.stream.share
        numbers = torch.from_numpy(self.stream.numbers(made.step - 1))
        rows = torch.zeros(3, whole, dtype=torch.float64)
        rows[:, first:last] = torch.stack([each.cpu().double() for each in (made.losses, made.t, numbers)])
        losses, t, numbers = self.state.processes.add(rows)
        loss, bad = float(made.loss), ~torch.isfinite(losses)
        count, timed = int(bad.sum()), bool(t.any())
        if count:
            which = _named(numbers[bad][0]) + (" among them" if count > 1 else "")
            told = f"{count} of the batch's {whole} samples {'have' if count > 1 else 'has'} none ({which})"
            return f"the loss is {loss}: {told}" + (_at(t[bad]) if timed else "")
        worst = losses.argmax()
        largest = f"{float(losses[worst]):.4g} ({_named(numbers[worst])})"
        told = f"the largest loss of the batch's {whole} samples is {largest}"
        finite = f"the loss is {loss:.4g}, but the norm of its gradient is {float(made.norm)}"
        begin = finite if math.isfinite(loss) else f"the loss is {loss}"
        return f"{begin}: {told}" + (_at(t[worst]) if timed else "")


def _first_broken(steps: list[Made]) -> Made | None:
    """The first of some steps that is no number; a device is waited for once, however many there are."""
    if len(steps) == 1:  # on a processor that is every step, of which some take a tenth of a millisecond
        made = steps[0]
        return None if math.isfinite(made.loss) and math.isfinite(made.norm) else made
    if not steps:
        return None
    numbers = torch.stack([torch.stack([made.loss for made in steps]), torch.stack([made.norm for made in steps])])
    sound = numbers.isfinite().all(0).tolist()
    return next((made for made, fine in zip(steps, sound, strict=True) if not fine), None)


def _named(number: Tensor) -> str:
    return f"number {int(number)} of the training data"


def _at(t: Tensor) -> str:
    low, high = f"{float(t.min()):.3f}", f"{float(t.max()):.3f}"
    return f", at t = {low}" + (f" to {high}" if high != low else "")
