"""The metrics of a run: JSON lines, whole at every moment, cut back to the checkpoint that a run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.checkpoint import write_atomically


class MetricsFile:
    """A file of JSON lines that grows.

    Args:
        path: Where it stands.
        step: Lines of later steps are removed: the run goes on from here and writes them again.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] < step or (line["step"] == step and step > 0)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: The disk is full.
        """
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Makes sure that all lines are on the disk."""
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; none if it does not exist."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
