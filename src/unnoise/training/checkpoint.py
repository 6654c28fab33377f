"""Checkpoints: one safetensors file each, written atomically, with a checksum; the newest whole one is what a run goes on from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..files import write_atomically

SUFFIX = ".safetensors"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).numpy().tobytes(), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def remove_partials(folder: Path) -> None:
    """Removes what writers that were killed left half written in a folder; only for who alone writes there."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], step: int, facts: Mapping[str, object], keep: int = 2
) -> Path:
    """Writes the state of a run, and removes all but the newest checkpoints up to this one.

    Checkpoints of later steps stay: they were passed over as damaged, and must not push out those that are whole.

    Args:
        folder: Where checkpoints stand; made if missing.
        tensors: The state.
        step: Updates made so far.
        facts: More to remember, as JSON.
        keep: How many checkpoints stay.

    Returns:
        The file.

    Raises:
        OSError: The disk is full, or may not be written to; the checkpoints before stay.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    # One entry: safetensors writes several in an order that differs from call to call, and files are compared by bytes.
    about = json.dumps({"step": step, "checksum": _checksum(tensors), "facts": facts})
    path = folder / f"{step:09d}{SUFFIX}"
    write_atomically(path, save(dict(tensors), metadata={"run": about}))
    for old in [other for other in checkpoints(folder) if other.name <= path.name][keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob(f"[0-9]*{SUFFIX}"), reverse=True)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], int, dict[str, object]]:
    """The state, step and facts in a checkpoint.

    Raises:
        ValueError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if _checksum(tensors) != about["checksum"]:
            raise ValueError(f"{path.name}: its checksum does not fit")
        return tensors, int(about["step"]), about["facts"]
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def newest_whole(folder: Path) -> tuple[tuple[dict[str, Tensor], int, dict[str, object]] | None, list[str]]:
    """The newest checkpoint that can be read, or None, and a line about each damaged one that was passed over."""
    damaged: list[str] = []
    for path in checkpoints(folder):
        try:
            return load_checkpoint(path), damaged
        except ValueError as error:
            damaged.append(str(error))
    return None, damaged
