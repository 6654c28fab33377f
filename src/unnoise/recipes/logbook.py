"""What is written down while a run goes on: a line of numbers every few steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.loop import Diverged, Event, Finished, Stepped, Validated
from ..training.noise_scale import GradientNoiseScale
from ..training.settings import TrainingSettings
from .metrics import MetricsFile


class Logbook:
    """The numbers of a run, as its events come.

    Args:
        folder: Of the run.
        step: Where it stands; lines of later steps are removed, since they are written again.
        settings: Of the run.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, step: int, settings: TrainingSettings) -> None:
        self.folder, self.settings = folder, settings
        self._open(step)

    def _open(self, step: int) -> None:
        self._metrics = MetricsFile(self.folder, step)
        self._began, self._begun_at = time.perf_counter(), step
        self._noise = GradientNoiseScale()
        for line in self._metrics.kept:  # a resumed run averages over the same steps as one that was not interrupted
            if "gradient_noise" in line:
                self._noise.add(line["gradient_noise"], line["gradient_signal"])

    def note(self, event: Event) -> None:
        """Writes down what an event tells.

        Raises:
            OSError: The disk is full.
        """
        match event:
            case Stepped():
                self._stepped(event)
            case Validated(step=step, loss=loss, floor=floor):
                scores = {"validation_loss": loss.loss, **({"bayes_floor": floor.loss} if floor else {})}
                by_time = {
                    "t": list(loss.t), "loss": list(loss.by_time), "floor": list(floor.by_time) if floor else None,
                }  # fmt: skip
                self.write({"step": step, **scores, "by_time": by_time})
            case Finished():
                self.flush()

    def _stepped(self, event: Stepped) -> None:
        settings, step = self.settings, event.step
        if step % settings.log_every and step != settings.steps:
            return
        noise: dict[str, Any] = {}
        if event.norms is not None:
            self._noise.add(event.norms.noise, event.norms.signal)
            noise = {"gradient_noise": event.norms.noise, "gradient_signal": event.norms.signal}
            noise["gradient_noise_scale"] = self._noise.value
        rate = (step - self._begun_at) * settings.batch_size / (time.perf_counter() - self._began)
        line = {
            "step": step,
            "loss": float(event.loss),
            "lr": event.learning_rate,
            "gradient_norm": float(event.gradient_norm),
            **noise,
            "samples_per_second": round(rate, 1),
            "waiting_for_data": round(event.waiting, 4),
        }
        self.write({name: value for name, value in line.items() if value is not None})

    def went_back(self, step: int, event: Diverged) -> None:
        """The run goes on from an earlier step."""
        self._metrics.close()
        self._open(step)
        told = f"{event.what} at step {event.step}: went back to step {step} with half the learning rate"
        self.write({"step": step, "went_back": told})

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line; see `MetricsFile.write`."""
        self._metrics.write(line)

    def flush(self) -> None:
        """Makes sure that all lines are on the disk."""
        self._metrics.flush()

    def close(self) -> None:
        """Ends the files."""
        self._metrics.close()
