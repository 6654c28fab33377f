"""Files that are whole or not there, and the folder in which features are kept."""

from __future__ import annotations

import os
from pathlib import Path

from ...data._cache import cache_folder


def features_folder() -> Path:
    """Where features and the networks that make them are kept: `features` in the user's cache."""
    return cache_folder() / "features"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, whenever the machine stops.

    Raises:
        OSError: The disk is full, or may not be written to; the old file stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
