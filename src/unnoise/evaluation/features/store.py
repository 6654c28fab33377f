"""Features of the real data, and their moments, kept so that they are worked out once for each data set and extractor."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.base import Dataset
from ...errors import DataError
from ...files import write_atomically
from ..metrics.moments import Moments
from .base import Extractor, Progress
from .digest import digest_of
from .files import features_folder

FORMAT = 1  # raised whenever the same data and extractor would give other numbers
BLOCK = 512  # samples between two moments at which the work can be broken off


def features_of(x: Tensor, extractor: Extractor, progress: Progress | None = None, what: str = "features") -> Tensor:
    """The features of samples in memory, block by block, shape (N, dim), float32.

    Args:
        x: Samples in the units of the data, shape (N, *shape).
        extractor: Makes them.
        progress: Told of samples done.
        what: What the progress is called.
    """
    rows = torch.empty(len(x), extractor.dim)
    for start in range(0, len(x), BLOCK):
        rows[start : start + BLOCK] = extractor(x[start : start + BLOCK])
        if progress is not None:
            progress(what, min(start + BLOCK, len(x)), len(x))
    return rows


def reference_features(data: Dataset, extractor: Extractor, progress: Progress | None = None) -> Tensor:
    """The features of all samples of the real data, from the cache where they are there.

    They are written block by block; work that was broken off goes on where it was. What cannot be kept, on a full or
    read-only disk, is worked out in memory.

    Args:
        data: The real data.
        extractor: Makes them.
        progress: Told of samples done.

    Returns:
        Shape (N, dim), float32, mapped from disk copy-on-write: what is changed in memory stays out of the file.

    Raises:
        DataError: What stands in the cache under this name says that it belongs to other data or another extractor.
    """
    shelf = Shelf.of(data, extractor)
    found = shelf.read()
    if found is not None:
        return found
    what = "features of the data" + (" (the kept ones are damaged)" if shelf.path(".json").exists() else "")
    try:
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with _alone(shelf.path(".lock")):
            found = shelf.read()  # another process may have made it while this one waited
            return shelf.fill(data, extractor, progress, what) if found is None else found
    except OSError:
        return features_of(data.x, extractor, progress, what)


def reference_moments(data: Dataset, extractor: Extractor, progress: Progress | None = None) -> Moments:
    """The mean and the covariance of the real data's features, from the cache where they are there.

    Raises:
        DataError: See `reference_features`, or there are fewer than 2 samples.
    """
    if len(data) < 2:
        raise DataError(f"a covariance needs at least 2 samples, and the data set has {len(data)}")
    shelf = Shelf.of(data, extractor)
    found = shelf.read_moments()
    if found is None:
        found = Moments.of(reference_features(data, extractor, progress).split(4096))
        with suppress(OSError):  # a full or read-only disk: they are worked out again next time
            shelf.write_moments(found)
    return found


@dataclass(frozen=True)
class Shelf:
    """The place in the cache of one data set's features in one space.

    Args:
        folder: The cache.
        owner: What the features depend on: the hashes of data and extractor, the resize rule and the format.
        shape: Of all features, (N, dim).
    """

    folder: Path
    owner: dict[str, Any]
    shape: tuple[int, int]

    @classmethod
    def of(cls, data: Dataset, extractor: Extractor) -> Shelf:
        """The place of a data set's features."""
        owner = {"format": FORMAT, "data": data.fingerprint(), "extractor": extractor.hash, "resize": extractor.resize}
        return cls(features_folder(), owner, (len(data), extractor.dim))

    @property
    def key(self) -> str:
        """32 hexadecimal digits of the owner."""
        return hashlib.sha256(json.dumps(self.owner, sort_keys=True).encode()).hexdigest()[:32]

    def path(self, suffix: str) -> Path:
        """A file of this place."""
        return self.folder / f"rows-{self.key}{suffix}"

    @property
    def named(self) -> dict[str, Any]:
        """The owner as the headers of files name it."""
        return {**self.owner, "shape": list(self.shape)}

    def check(self, path: Path, owner: Any) -> None:
        """Refuses a file whose header names another owner.

        Raises:
            DataError: It does.
        """
        for name, value in self.named.items():
            if owner.get(name) != value:
                other = f"another {name} ({owner.get(name)!r} and not {value!r})"
                raise DataError(f"{path} holds features of {other}: remove it, and they are worked out anew")

    def read(self) -> Tensor | None:
        """The features; None where they are not there or not whole.

        Raises:
            DataError: The header names another owner.
        """
        facts = self._facts(self.path(".json"))
        if facts is None:
            return None
        try:
            # Mapped copy-on-write: torch wants memory that it may write to, and the file must stay as it is.
            rows = np.load(self.path(".npy"), mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if (
            rows.dtype != np.float32
            or rows.shape != self.shape
            or hashlib.sha256(rows.data).hexdigest() != facts["sha256"]
        ):
            return None
        return torch.from_numpy(np.asarray(rows))

    def _facts(self, path: Path) -> dict[str, Any] | None:
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            owner, _ = dict(facts["owner"]), str(facts["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.check(path, owner)
        return facts

    def read_moments(self) -> Moments | None:
        """The moments of the features; None where they are not there or not whole.

        Raises:
            DataError: The header names another owner.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path(".moments.safetensors")
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["moments"])
                found = {name: file.get_tensor(name) for name in ("n", "mean", "squares")}
            owner, whole = dict(facts["owner"]), facts["sha256"] == digest_of({}, found)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        self.check(path, owner)
        return Moments.from_state(found) if whole else None

    def write_moments(self, moments: Moments) -> None:
        """Keeps the moments of the features.

        Raises:
            OSError: They cannot be written.
        """
        from safetensors.torch import save

        tensors = moments.state()
        facts = json.dumps({"owner": self.named, "sha256": digest_of({}, tensors)})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(".moments.safetensors"), save(tensors, metadata={"moments": facts}))

    def fill(self, data: Dataset, extractor: Extractor, progress: Progress | None, what: str) -> Tensor:
        """Works the features out, going on where work was broken off.

        Raises:
            OSError: They cannot be written.
        """
        part, notes, total = self.path(".part"), self.path(".part.json"), self.shape[0]
        done, digest = self._resume(part, notes)
        header = _header(self.shape)
        with part.open("r+b" if done else "w+b") as file:
            file.write(header)
            file.seek(len(header) + done * self.shape[1] * 4)
            file.truncate()
            for start in range(done, total, BLOCK):
                rows = extractor(data.x[start : start + BLOCK]).contiguous().numpy()
                file.write(rows.data)
                file.flush()
                digest.update(rows.data)
                done = start + len(rows)
                facts = {"owner": self.named, "sha256": digest.hexdigest(), "done": done}
                write_atomically(notes, json.dumps(facts, indent=1).encode())
                if progress is not None:
                    progress(what, done, total)
            os.fsync(file.fileno())
        os.replace(notes, self.path(".json"))
        os.replace(part, self.path(".npy"))
        found = self.read()
        if found is None:
            raise OSError(f"{self.folder} does not keep what is written there")
        return found

    def _resume(self, part: Path, notes: Path) -> tuple[int, Any]:
        """How many samples of broken-off work are whole, and the running digest of their features."""
        facts, digest = self._facts(notes), hashlib.sha256()
        try:
            with part.open("rb") as file:
                file.seek(len(_header(self.shape)))
                rest = 0 if facts is None else int(facts["done"]) * self.shape[1] * 4
                while rest and (chunk := file.read(min(rest, 1 << 22))):
                    digest.update(chunk)
                    rest -= len(chunk)
        except (OSError, KeyError, TypeError, ValueError):
            return 0, hashlib.sha256()
        if facts is None or rest or digest.hexdigest() != facts["sha256"]:
            return 0, hashlib.sha256()
        return int(facts["done"]), digest


def _header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a .npy file of float32 numbers."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Within it no other process works on the same features; where files cannot be locked, nothing is waited for."""
    try:
        import fcntl
    except ImportError:  # on Windows, where a file that is open cannot be replaced in any case
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
