"""Checkpoints of runs whose weights are shared out: every process writes its share, and any number of processes can read them.

The format is that of torch.distributed.checkpoint; `facts.json` beside it says what it holds.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RunFolderError
from ..files import write_atomically
from .parallel import Processes
from .state import TrainState

SHARDED = ".sharded"
_FACTS = "facts.json"
_AT_ONCE = 2**24
"""Bytes of a file that are read at once."""


def save_shares(folder: Path, state: TrainState, facts: Mapping[str, object], processes: Processes) -> Path:
    """Writes the state of a run; all processes call this.

    Args:
        folder: Where checkpoints stand, for all processes the same; made if missing.
        state: Of this process.
        facts: More to remember, as JSON; those of the first process count.
        processes: That write.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: The disk is full, or may not be written to; the checkpoints before stay.
    """
    path, making = folder / f"{state.step:09d}{SHARDED}", folder / f".{state.step:09d}{SHARDED}.partial"
    if processes.first:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
    processes.wait()
    try:
        _write(making, state)
        sums = {name: each for own in processes.hear(_own_sums(making, processes.rank)) for name, each in own.items()}
        about = {"step": state.step, "facts": facts, "sums": sums}
        wrong = _completed(making, path, about) if processes.first else None
        if told := processes.tell(wrong):
            assert isinstance(told, OSError)
            raise told
    except OSError:
        if processes.first:  # what was written of it takes the place that is missing
            shutil.rmtree(making, ignore_errors=True)
        raise
    return path


def _write(folder: Path, state: TrainState) -> None:
    """Every process writes its share; if one cannot, all raise."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process may write too
            save(state.slots() | state.beside(), checkpoint_id=folder)
    except CheckpointException as error:  # which is no Exception, and holds what each process met
        met = next(iter(error.failures.values()))[0]
        number = (met.errno if isinstance(met, OSError) else None) or errno.EIO
        raise OSError(number, os.strerror(number) if isinstance(met, OSError) else str(met), str(folder)) from None


def _own_sums(folder: Path, rank: int) -> dict[str, str]:
    """The checksums of what a process wrote; of the first one, that of what says where all stands, too."""
    own = [*folder.glob(f"__{rank}_*"), *(folder.glob(".metadata") if rank == 0 else ())]
    return {file.name: _checksum(file) for file in own}


def _checksum(file: Path) -> str:
    value = 0
    with file.open("rb") as opened:
        while some := opened.read(_AT_ONCE):
            value = zlib.crc32(some, value)
    return f"{value:08x}"


def _completed(making: Path, path: Path, about: dict[str, Any]) -> OSError | None:
    """Says what the folder holds and gives it its name; or returns what went wrong."""
    try:
        sizes = {file.name: file.stat().st_size for file in sorted(making.iterdir())}
        write_atomically(making / _FACTS, json.dumps({**about, "sizes": sizes}).encode())
        shutil.rmtree(path, ignore_errors=True)  # of a run that went back behind it
        os.replace(making, path)
    except OSError as error:
        return error
    return None


def read_facts(path: Path, every_byte: bool = True) -> dict[str, Any]:
    """What a checkpoint of shares holds: step, sizes, checksums and facts.

    Args:
        path: Of its folder.
        every_byte: Whether its files are held against their checksums, and not against their sizes alone.

    Raises:
        ValueError: A file of it is missing, cut short or damaged.
        OSError: It cannot be read.
    """
    about: dict[str, Any] = json.loads((path / _FACTS).read_text(encoding="utf-8"))
    for name, size in about["sizes"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            raise ValueError(f"{path.name}: {name} is missing or cut short")
    for name, known in about.get("sums", {}).items() if every_byte else ():  # checkpoints had none once
        if _checksum(path / name) != known:
            raise ValueError(f"{path.name}: the checksum of {name} does not fit")
    return about


def load_shares(path: Path, state: TrainState) -> dict[str, Tensor]:
    """Reads the state of a run into another, whose weights may be shared out otherwise, or not at all; all processes call this.

    Returns:
        What the companion remembered.

    Raises:
        RunFolderError: It holds another network.
    """
    beside = {name: tensor.clone() for name, tensor in state.beside().items()}
    slots, stored = state.slots() | beside, _shapes(path)
    wrong = [name for name in slots if tuple(slots[name].shape) != stored.get(name)]
    wrong += sorted(set(stored) - set(slots))
    if wrong:
        raise RunFolderError(
            f"the checkpoint holds the weights of another network (it differs in {min(wrong)}): use another --out"
        )
    _read(path, slots, alone=state.processes.count == 1)
    return {name.partition("/")[2]: tensor for name, tensor in beside.items()}


def read_whole(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with a prefix, whole, without it."""
    found = {name: torch.empty(shape) for name, shape in _shapes(path).items() if name.startswith(prefix)}
    _read(path, found, alone=True)
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    return {name: tuple(getattr(each, "size", ())) for name, each in stored.items()}


def _read(path: Path, into: dict[str, Tensor], alone: bool) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is what was asked for
            load(into, storage_reader=FileSystemReader(path), no_dist=alone)
    except CheckpointException as error:  # which is no Exception, and holds what each process met
        met = " ".join(str(next(iter(error.failures.values()))[0]).split())
        raise RunFolderError(
            f"{path} cannot be read ({met}): remove it, and the same command goes on from the checkpoint before"
        ) from None
