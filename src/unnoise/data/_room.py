"""How the user's cache is kept from growing without end."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import BadOption

DEFAULT_LIMIT = 100.0  # GB


def cache_limit() -> int:
    """How many bytes of decoded pictures the cache keeps: $UNNOISE_CACHE_LIMIT, in GB, or 100 GB.

    Raises:
        BadOption: It is no number.
    """
    text = os.environ.get("UNNOISE_CACHE_LIMIT", str(DEFAULT_LIMIT))
    try:
        return int(float(text) * 1e9)
    except ValueError:
        raise BadOption(f"UNNOISE_CACHE_LIMIT: expected a number of GB, got {text!r}") from None


def make_room(folder: Path, most: int, keep: Path | None = None) -> None:
    """Removes files of a folder, those first that were not used for longest, until the rest is small enough.

    A file that a process has open or mapped stays readable there until it lets go of it.

    Args:
        folder: Whose files.
        most: Bytes that may stay.
        keep: A file that stays in any case.
    """
    files: list[tuple[float, int, Path]] = []
    for file in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # another process has removed it
            if file.is_file() and not file.name.startswith("making-"):
                status = file.stat()
                files.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= most:
            return
        if file != keep:
            with suppress(OSError):
                file.unlink(missing_ok=True)  # another process may have removed it: that makes room, too
                total -= size
