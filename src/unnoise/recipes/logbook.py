"""What is written down while a run goes on: a line of numbers every few steps, for its folder and for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import MissingExtra
from ..training.loop import Diverged, Event, Finished, Stepped, Validated
from ..training.noise_scale import GradientNoiseScale
from ..training.peak import measured_peak, peak_memory
from ..training.settings import TrainingSettings
from ..training.threads import SMALL_STEP
from .metrics import MetricsFile
from .tracking.base import TrackedRun, Tracker, numbers_in, trackers


@dataclass(frozen=True)
class StepCost:
    """What a step is to the machine.

    Args:
        operations: Floating-point operations, of all processes.
        processes: How many share them.
        dtype: What the network computes in.
        device: Where.
    """

    operations: float
    processes: int
    dtype: torch.dtype
    device: torch.device


class Logbook:
    """The numbers of a run, as its events come.

    Args:
        run: Where it stands, and where else its numbers go.
        settings: Of the run.
        cost: What a step is to the machine.

    Raises:
        OSError: It cannot be written.
        MissingExtra: The library of a tracker that was asked for is not installed.
    """

    def __init__(self, run: TrackedRun, settings: TrainingSettings, cost: StepCost) -> None:
        self.run, self.settings, self.cost = run, settings, cost
        self._open(run)

    def _open(self, run: TrackedRun) -> None:
        self._trackers = _made(run)
        self._metrics = MetricsFile(run.folder, run.step)
        self._pace = Pace()
        self._noise = GradientNoiseScale()
        for line in self._metrics.kept:  # a resumed run averages over the same steps as one that was not interrupted
            if "gradient_noise" in line:
                self._noise.add(line["gradient_noise"], line["gradient_signal"])

    def note(self, event: Event) -> None:
        """Writes down what an event tells.

        Raises:
            OSError: The disk is full.
        """
        if not isinstance(event, Stepped):  # also `Working`: what begins then is no part of a step's time
            self._pace.interrupted()
        match event:
            case Stepped():
                self._pace.stepped()
                if event.step % self.settings.log_every == 0 or event.step == self.settings.steps:
                    self._stepped(event)
            case Validated(step=step, loss=loss, floor=floor):
                scores = {"validation_loss": loss.loss, **({"bayes_floor": floor.loss} if floor else {}), **loss.more}
                by_time = {
                    "t": list(loss.t), "loss": list(loss.by_time), "floor": list(floor.by_time) if floor else None,
                }  # fmt: skip
                self.write({"step": step, **scores, **({"by_time": by_time} if loss.t else {})})
            case Finished():
                self.flush()

    def _stepped(self, event: Stepped) -> None:
        line: dict[str, Any] = {"step": event.step, "loss": float(event.loss), "lr": event.learning_rate}
        line["gradient_norm"] = float(event.gradient_norm)
        if event.norms is not None:
            self._noise.add(event.norms.noise, event.norms.signal)
            line |= {"gradient_noise": event.norms.noise, "gradient_signal": event.norms.signal}
            line["gradient_noise_scale"] = self._noise.value
        line |= self._horizons(event.step)
        line |= self._measured() | {"waiting_for_data": round(event.waiting, 4)}
        self.write({name: value for name, value in line.items() if value is not None})

    def _horizons(self, step: int) -> dict[str, float]:
        """How many updates each average of the weights looks back by now; the model's bears no name."""
        model, *others = self.settings.averages.items()
        named = [("ema_horizon", model[1]), *((f"ema_horizon/{name}", average) for name, average in others)]
        return {name: round(average.horizon(step, self.settings.batch_size), 1) for name, average in named}

    def _measured(self) -> dict[str, float | None]:
        """What is measured of the machine; last in a line, since no two runs have it alike."""
        cost, rate = self.cost, self._pace.rate()
        found: dict[str, float | None] = {"samples_per_second": round(rate * self.settings.batch_size, 1)}
        if cost.operations >= SMALL_STEP:
            speed = cost.operations * rate
            peak = cost.processes * measured_peak(cost.dtype, cost.device, torch.get_num_threads())
            found |= {"tflops": round(speed / 1e12, 4), "fraction_of_peak": round(speed / peak, 3)}
        memory = peak_memory(cost.device)
        return {**found, "peak_memory_gb": None if memory is None else round(memory / 1e9, 3)}

    def went_back(self, step: int, event: Diverged) -> None:
        """The run goes on from an earlier step."""
        self.close()
        self._open(TrackedRun(self.run.folder, self.run.recipe, self.run.settings, step))
        told = f"{event.what} at step {event.step}: went back to step {step} with half the learning rate"
        self.write({"step": step, "went_back": told})

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line: numbers by name, `step` among them.

        Raises:
            OSError: The disk is full.
        """
        self._metrics.write(line)
        numbers = numbers_in(line)
        for tracker in self._trackers:
            tracker.numbers(numbers, line["step"])

    def picture(self, name: str, path: Path, step: int) -> None:
        """Shows a picture to whoever watches."""
        for tracker in self._trackers:
            tracker.picture(name, path, step)

    def flush(self) -> None:
        """Makes sure that all lines are on the disk."""
        self._metrics.flush()

    def close(self) -> None:
        """Ends the files."""
        self._metrics.close()
        for tracker in self._trackers:
            tracker.close()


class Pace:
    """How many steps a second are made, without the time that goes to samples, validation and checkpoints."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._steps, self._seconds = 0, 0.0
        self._rate = 0.0

    def stepped(self) -> None:
        """A step was made."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
        self._last = now

    def interrupted(self) -> None:
        """Something else took time."""
        self._last = None

    def rate(self) -> float:
        """Steps a second since this was last asked."""
        if self._seconds > 0:
            self._rate = self._steps / self._seconds
            self._steps, self._seconds = 0, 0.0
        return self._rate


def _made(run: TrackedRun) -> list[Tracker]:
    found: list[Tracker] = []
    for name in run.settings.trackers:
        try:
            found.append(trackers[name](run))
        except MissingExtra:
            if not trackers[name].optional:
                raise
    return found
