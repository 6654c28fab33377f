"""The metrics of a run: JSON lines, whole at every moment, cut back to the checkpoint that a run goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import naming, write_atomically


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
