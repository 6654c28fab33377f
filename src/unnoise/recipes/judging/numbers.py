"""Numbers that were worked out before, and how far the working out is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...data.base import Progress
from ...evaluation.metrics.base import Estimate
from ...files import write_atomically


class Told:
    """Tells of one piece of work after the other."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, -1

    def __call__(self) -> None:
        """The next piece begins."""
        self.done += 1
        if self.progress is not None:
            self.progress("measuring", self.done, self.total)

    def end(self) -> None:
        """All is done."""
        if self.progress is not None:
            self.progress("measuring", self.total, self.total)


class Numbers:
    """Numbers that were worked out before, by what they depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        if path.is_file():
            try:
                self._known = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                self._known = {}  # damaged: they are worked out again

    def get(self, key: str) -> Estimate | None:
        """The number, or None."""
        found = self._known.get(_digest(key))
        try:
            return None if found is None else Estimate(**{**found, "notes": tuple(found["notes"])})
        except (TypeError, KeyError):
            return None

    def keep(self, key: str, estimate: Estimate) -> None:
        """Writes a number down."""
        self._known[_digest(key)] = asdict(estimate)
        write_atomically(self.path, (json.dumps(self._known) + "\n").encode())


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:24]
