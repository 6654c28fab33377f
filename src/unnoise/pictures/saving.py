"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import write_atomically


def replace(path: str | os.PathLike[str], content: bytes) -> Path:
    """Writes a file; whoever reads it meanwhile, or after a crash, finds the old content or the new one, never a part.

    Args:
        path: The file; its folder is made when missing.
        content: All of it.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
