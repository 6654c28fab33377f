"""Files that are either the old ones or the whole new ones, and where those stand that can be made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which an error of the operating system gets a path where it has none, as that of a failed write has."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, whenever the machine stops.

    Raises:
        OSError: The disk is full, or may not be written to; the old file stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path):
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where things are kept that can be made again: $UNNOISE_CACHE, $XDG_CACHE_HOME/unnoise or ~/.cache/unnoise."""
    if own := os.environ.get("UNNOISE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unnoise"
