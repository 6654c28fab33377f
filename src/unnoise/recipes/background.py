"""Runs in processes of their own: each is `unnoise train`, in an ordinary run folder, that somebody watches, pauses and resumes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import BadOption, RunFolderError, UnknownName
from ..files import write_atomically
from .gallery import smoothed
from .metrics import read_metrics
from .recipe import load_any_recipe, read_values, with_data

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
State = Literal["running", "paused", "stopped", "finished", "failed"]
MOST_POINTS = 600
"""Of a curve that is shown."""


@dataclass(frozen=True)
class Begun:
    """How a run was begun, and what became of its process.

    Args:
        recipe: A shipped recipe's name.
        overrides: Texts such as "training.steps=600".
        data: Data of its own; empty for the recipe's.
        process: The number of its process.
        stopped: Whether a person meant it to end, and not to pause.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    data: str = ""
    process: int = 0
    stopped: bool = False


class BackgroundRuns:
    """The runs of one folder.

    Args:
        folder: Where run folders stand; made when the first run begins.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._notes = self.folder / ".background"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, recipe: str, overrides: Sequence[str] = (), data: str = "") -> None:
        """Begins a run.

        Args:
            name: Of its folder.
            recipe: A shipped recipe's name.
            overrides: Texts such as "training.steps=600".
            data: A folder of images, Parquet, NPY/NPZ or CSV, or a shipped data set's name; empty for the recipe's own.

        Raises:
            BadOption: The name is none, or is taken; an option is wrong.
            DataError: Nothing that can be read stands there.
            UnknownName: There is no such recipe.
        """
        if self._place(name).exists() or (name in self._processes and self._processes[name].poll() is None):
            raise BadOption(f"there is a run {name} already: give the new one another name, or resume that one")
        values = read_values(recipe)
        load_any_recipe(with_data(values, data) if data else values, list(overrides))
        self._start(name, Begun(recipe, tuple(overrides), data))

    def resume(self, name: str) -> None:
        """Goes on with a run that was paused, stopped, or killed, from its last checkpoint.

        Raises:
            UnknownName: There is no such run here.
            RunFolderError: It is at work, or it was not begun here.
        """
        begun = self._begun(name)
        if begun is None:
            raise RunFolderError(
                f"{name} was not begun here: give the command that it was begun with to `unnoise train`"
            )
        if self._alive(name, begun):
            raise RunFolderError(f"{name} is at work already")
        self._start(name, replace(begun, stopped=False))

    def end(self, name: str, stopped: bool = False) -> None:
        """Asks a run to save and end after its step; nothing happens to one that has ended.

        Args:
            name: Of the run.
            stopped: Whether it is over; else it is paused.

        Raises:
            UnknownName: There is no such run here.
        """
        begun = self._begun(name)
        if begun is None:
            return
        if stopped:
            self._write(name, replace(begun, stopped=True))
        if self._alive(name, begun):
            with contextlib.suppress(ProcessLookupError):
                os.kill(begun.process, signal.SIGTERM)

    def names(self) -> list[str]:
        """Of all runs that stand here, the newest first."""
        if not self.folder.is_dir():
            return []
        begun = {note.stem for note in self._notes.glob("*.json")}
        found = [
            each.name
            for each in self.folder.iterdir()
            if each.is_dir() and NAME.fullmatch(each.name) and ((each / "recipe.yaml").is_file() or each.name in begun)
        ]
        waiting = [name for name in begun if name not in found]  # their folders are made in a moment
        return sorted({*found, *waiting}, key=lambda name: (-self._age(name), name))

    def _age(self, name: str) -> float:
        for file in (self._notes / f"{name}.json", self.folder / name / "recipe.yaml"):
            if file.is_file():
                return file.stat().st_mtime
        return 0.0

    def facts(self, name: str) -> dict[str, Any]:
        """How a run stands, as JSON can hold it.

        Raises:
            UnknownName: There is no such run here.
        """
        begun, place = self._begun(name), self._place(name)
        lines = read_metrics(place / "metrics.jsonl")
        steps = _steps_of(place)
        step = int(lines[-1]["step"]) if lines else 0
        state = self._state(name, begun, steps, step)
        rate = next((line["samples_per_second"] for line in reversed(lines) if line.get("samples_per_second")), None)
        size = _batch_of(place)
        left = (steps - step) * size / rate if state == "running" and steps and size and rate else None
        return {
            "name": name,
            "state": state,
            "begun": None if begun is None else asdict(begun),
            "step": step,
            "steps": steps,
            "eta": left,
            "samples_per_second": rate,
            "has_model": (place / "model" / "model.yaml").is_file(),
            "said": _last_words(self._notes / f"{name}.log") if state == "failed" else "",
            "pictures": [each.name for each in sorted((place / "samples").glob("*.png"))],
        }

    def curves(self, name: str) -> dict[str, Any]:
        """The numbers of a run over its steps: loss, smoothed, validated, its floor, and what else was measured.

        Raises:
            UnknownName: There is no such run here.
        """
        lines = read_metrics(self._place(name) / "metrics.jsonl")
        trained = [(line["step"], line["loss"]) for line in lines if isinstance(line.get("loss"), (int, float))]
        keep = max(1, len(trained) // MOST_POINTS)
        even = smoothed([loss for _, loss in trained])
        shown = [(step, loss, mean) for (step, loss), mean in zip(trained, even, strict=True)]
        shown = shown[::keep] + (shown[-1:] if shown and (len(shown) - 1) % keep else [])
        validated = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
        floors = [line["bayes_floor"] for line in lines if line.get("bayes_floor") is not None]
        measured = [line for line in lines if "best" in line]
        names = [key for key in (measured[0] if measured else {}) if f"{key}_low" in measured[0]]
        tables = [line["by_time"] for line in lines if line.get("by_time")]
        return {
            "step": [step for step, *_ in shown],
            "loss": [loss for _, loss, _ in shown],
            "smoothed": [mean for *_, mean in shown],
            "validated": {"step": [step for step, _ in validated], "loss": [loss for _, loss in validated]},
            "floor": floors[-1] if floors else None,
            "by_time": tables[-1] if tables else None,
            "measured": {
                key: {
                    "step": [line["step"] for line in measured if key in line],
                    "value": [line[key] for line in measured if key in line],
                }
                for key in names
            },
        }

    def picture(self, name: str, file: str) -> Path:
        """A grid of samples that a run has drawn.

        Raises:
            UnknownName: There is no such run, or no such picture.
        """
        pictures = {each.name: each for each in (self._place(name) / "samples").glob("*.png")}
        if file not in pictures:
            raise UnknownName("picture of this run", file, pictures)
        return pictures[file]

    def close(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Asks all runs that were begun by this process to save and end, and waits a moment for that.

        Args:
            hurried: Says whether to wait no longer.
        """
        for name, process in list(self._processes.items()):
            if process.poll() is None:
                self.end(name)
        until = time.monotonic() + 20
        while any(process.poll() is None for process in self._processes.values()):
            if hurried() or time.monotonic() > until:
                return
            time.sleep(0.05)

    def _place(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise BadOption(f"{name!r} is no name for a run: letters, digits and . _ - do, up to 64")
        return self.folder / name

    def _start(self, name: str, begun: Begun) -> None:
        self._notes.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "unnoise",
            "train",
            begun.recipe,
            *begun.overrides,
            "--out",
            str(self._place(name)),
        ]
        command += ["--data", begun.data] if begun.data else []
        with self._lock, (self._notes / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._processes[name] = process
            self._write(name, replace(begun, process=process.pid))

    def _write(self, name: str, begun: Begun) -> None:
        write_atomically(self._notes / f"{name}.json", json.dumps(asdict(begun)).encode())

    def _begun(self, name: str) -> Begun | None:
        """How a run was begun; None for one that was begun elsewhere."""
        place, note = self._place(name), self._notes / f"{name}.json"
        try:
            values = json.loads(note.read_text(encoding="utf-8"))
            return Begun(**{**values, "overrides": tuple(values["overrides"])})
        except FileNotFoundError:
            if (place / "recipe.yaml").is_file():
                return None
            raise UnknownName("run", name, self.names()) from None
        except (ValueError, TypeError, KeyError):
            return None

    def _alive(self, name: str, begun: Begun) -> bool:
        process = self._processes.get(name)
        if process is not None and process.pid == begun.process:
            return process.poll() is None
        return begun.process > 0 and _is_training(begun.process, self._place(name))

    def _state(self, name: str, begun: Begun | None, steps: int, step: int) -> State:
        if begun is not None and self._alive(name, begun):
            return "running"
        if steps and step >= steps:
            return "finished"
        process = self._processes.get(name)
        code = None if process is None else process.poll()
        if code not in (None, 0, 128 + signal.SIGTERM, -signal.SIGTERM):
            return "failed"
        return "stopped" if begun is not None and begun.stopped else "paused"


def _is_training(process: int, place: Path) -> bool:
    """Whether a process that an earlier one has begun is still at work on a run, and is no other of the same number."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"train" in words and os.fsencode(place) in words


def _values_of(place: Path) -> Mapping[str, Any]:
    try:
        return read_values(place / "recipe.yaml")
    except BadOption:
        return {}


def _steps_of(place: Path) -> int:
    return int(_values_of(place).get("training", {}).get("steps", 0))


def _batch_of(place: Path) -> int:
    return int(_values_of(place).get("training", {}).get("batch_size", 0))


def _last_words(log: Path) -> str:
    """The line that says why a run has ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    return next((line for line in reversed(told) if line.startswith("unnoise: ")), told[-1] if told else "")
