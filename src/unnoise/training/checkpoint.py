"""Checkpoints: one safetensors file each, or a folder of the shares of several processes; written whole or not at all.

The newest whole one is what a run goes on from. A file has a checksum, and so has each file of a folder.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..files import write_atomically
from .shares import SHARDED, load_shares, read_facts, read_whole
from .state import TrainState

SUFFIX = ".safetensors"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).numpy().tobytes(), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def remove_partials(folder: Path) -> None:
    """Removes what writers that were killed left half written in a folder; only for who alone writes there."""
    for partial in folder.glob(".*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], step: int, facts: Mapping[str, object]) -> Path:
    """Writes the state of a run.

    Args:
        folder: Where checkpoints stand; made if missing.
        tensors: The state.
        step: Updates made so far.
        facts: More to remember, as JSON.

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
    return path


def remove_old(folder: Path, step: int, keep: int = 2) -> None:
    """Removes all but the newest checkpoints up to a step.

    Those of later steps stay: they were passed over as damaged, and must not push out those that are whole.
    """
    upto = [other for other in checkpoints(folder) if int(other.stem) <= step]
    for old in upto[keep:]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first: files, and folders of what several processes wrote."""
    found = [*folder.glob(f"[0-9]*{SUFFIX}"), *folder.glob(f"[0-9]*{SHARDED}")]
    return sorted(found, key=lambda path: path.name, reverse=True)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run at some step.

    Args:
        path: Where it stands.
        step: Updates made.
        facts: What else was remembered.
        tensors: The state by name, or None where processes wrote their shares, which `restore` reads.
    """

    path: Path
    step: int
    facts: Mapping[str, object]
    tensors: dict[str, Tensor] | None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a prefix, whole, without it."""
        if self.tensors is None:
            return read_whole(self.path, prefix)
        return {n.removeprefix(prefix): tensor for n, tensor in self.tensors.items() if n.startswith(prefix)}

    def restore(self, state: TrainState) -> None:
        """Brings a run to it, whatever number of processes wrote it and run now; all of them call this.

        Raises:
            RunFolderError: It holds another network.
        """
        if self.tensors is not None:
            state.restore(self.tensors, self.step)
        else:
            state.restored(self.step, load_shares(self.path, state))


def load_checkpoint(path: Path, every_byte: bool = True) -> Checkpoint:
    """A checkpoint.

    Args:
        path: Where it stands.
        every_byte: Whether the shares of several processes are held against their checksums, which reads all of them.

    Raises:
        ValueError: It is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == SHARDED:
            about = read_facts(path, every_byte)
            return Checkpoint(path, int(about["step"]), about["facts"], None)
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if _checksum(tensors) != about["checksum"]:
            raise ValueError(f"{path.name}: its checksum does not fit")
        return Checkpoint(path, int(about["step"]), about["facts"], tensors)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def newest_whole(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, or None, and a line about each damaged one that was passed over."""
    damaged: list[str] = []
    for path in checkpoints(folder):
        try:
            return load_checkpoint(path), damaged
        except ValueError as error:
            damaged.append(str(error))
    return None, damaged
