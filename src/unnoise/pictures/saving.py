"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


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
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
