"""One process a run folder: two that train into one would spoil each other's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunFolderError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder until the context, or the process, ends.

    Raises:
        RunFolderError: Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another process is training in {folder}: wait for it, or use another --out"
            ) from None
        yield
