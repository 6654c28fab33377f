"""The metrics of a run: JSON lines, whole at every moment, cut back to the checkpoint that a run goes on from."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import naming, write_atomically

FAR_ABOVE = 3.0
"""Times the loss of a network that nobody trained yet: knowing held-out data by heart brings none so far up."""


class MetricsFile:
    """metrics.jsonl of a run.

    Args:
        folder: Of the run.
        step: Lines of later steps are removed: the run goes on from here and writes them again.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = path = folder / "metrics.jsonl"
        self.kept = [line for line in read_metrics(path) if line["step"] <= step and step > 0]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in self.kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line: numbers by name, `step` among them.

        Raises:
            OSError: The disk is full.
        """
        with naming(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def flush(self) -> None:
        """Makes sure that all lines are on the disk."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the file."""
        with naming(self._path):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, without those that are damaged; none if it does not exist."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def exploded(lines: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The first and the last validation of a run whose loss ended far above where it began, though it is a number; else None.

    Args:
        lines: Of its metrics.
    """
    validations = [line for line in lines if math.isfinite(line.get("validation_loss", math.nan))]
    if len(validations) < 2:
        return None
    first, last = validations[0], validations[-1]
    began = first["validation_loss"]
    steps = [line["loss"] for line in lines if math.isfinite(line.get("loss", math.nan))][-5:]
    if not 0 < FAR_ABOVE * began < last["validation_loss"]:
        return None
    # Held-out data can become strange to a network that knows its training data by heart; then only the former's loss is high.
    return None if steps and statistics.median(steps) < began else (first, last)


def told_of_explosion(folder: Path, rate: float) -> list[str]:
    """A note on a loss that ended far above where it began, and what to do; none where it did not.

    Args:
        folder: Of a run.
        rate: Its learning rate.
    """
    if (found := exploded(read_metrics(folder / "metrics.jsonl"))) is None:
        return []
    first, last = (line["validation_loss"] for line in found)
    told = f"the validation loss is {last:.4g}, far above the {first:.4g} that it began with"
    return [f"{told}: lower training.lr (now {rate:g}) and use another --out, or ask `unnoise doctor`"]
