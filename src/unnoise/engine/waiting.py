"""Requests that must not be forgotten: noted on disk when they are accepted, until they have ended."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import BadOption
from ..files import write_atomically
from .request import Request
from .results import NUMBER


class Waiting:
    """The notes of a folder, which several engines may use at a time, each in the name of its own that it holds a lock on.

    Args:
        folder: Made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, secrets.token_hex(4)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / f"{self.name}.lock")

    def note(self, number: str, request: Request) -> None:
        """Notes a request.

        Raises:
            OSError: The disk is full, or may not be written to.
        """
        told = {"by": self.name, "request": request.plain()}
        write_atomically(self.folder / f"{number}.json", json.dumps(told).encode())

    def forget(self, number: str) -> None:
        """Deletes the note of a request, if there is one."""
        (self.folder / f"{number}.json").unlink(missing_ok=True)

    def left(self) -> Iterator[tuple[str, Request]]:
        """The requests that engines have left which are no more; each is this one's from now on.

        What cannot be read, or not be noted because the disk is full, is left out, and stays.
        """
        for file in sorted(self.folder.glob("*.json")):
            if not NUMBER.fullmatch(file.stem):
                continue
            try:
                told = json.loads(file.read_bytes())
                lock = _locked(self.folder / f"{told['by']}.lock")
                if lock is None:  # whoever noted it is at work
                    continue
                with lock:
                    if json.loads(file.read_bytes())["by"] != told["by"]:  # another engine was quicker
                        continue
                    request = Request.of(told["request"])
                    self.note(file.stem, request)  # in the place of the other note: at no time is there none
            except (OSError, ValueError, KeyError, TypeError, BadOption):
                continue
            yield file.stem, request

    def close(self) -> None:
        """Gives up the name: what is still noted is for others to take."""
        if self._lock is not None:
            (self.folder / f"{self.name}.lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def _locked(file: Path) -> IO[str] | None:
    """The file with a lock that goes when it is closed, or its process ends; None where another holds one."""
    opened = file.open("w", encoding="utf-8")
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without such locks
        pass
    except OSError:
        opened.close()
        return None
    return opened
