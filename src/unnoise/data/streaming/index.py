"""The index of a data set in shards: made by one pass over them, and kept in the user's cache."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...files import cache_folder, write_atomically
from .._progress import Progress
from .formats import Scan, ShardFormat
from .store import Shard, Store, digest

FORMAT = 2  # raised whenever the same shard would give another index
_AT_ONCE = 8


@dataclass(frozen=True)
class Entry:
    """One shard in the index.

    Args:
        shard: Which one.
        scan: What is in it; its places are left to the file.
        content: Another one as soon as the shard holds something else.
        file: Where its places are kept.
    """

    shard: Shard
    scan: Scan
    content: str
    file: Path

    def places(self) -> dict[str, NDArray[Any]]:
        """Where the samples are, in the terms of the format.

        Raises:
            DataError: The index is gone.
        """
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                return {name.removeprefix("at_"): arrays[name] for name in arrays.files if name.startswith("at_")}
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise DataError(f"the index of {self.shard.name} cannot be read: {error}; start again") from None


def make_index(
    form: ShardFormat, store: Store, shards: Sequence[Shard], progress: Progress | None = None
) -> list[Entry]:
    """The index of some shards: from the cache where they have not changed, else from one pass over each.

    Args:
        form: What the shards are.
        store: Opens them.
        shards: In their order.
        progress: Told how many shards are indexed.

    Raises:
        DataError: A shard is damaged, or of another kind.
    """
    folder = _folder()
    entries: list[Entry] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for i, entry in enumerate(pool.map(partial(_entry, form, store, folder), shards)):
                entries.append(entry)
                if progress is not None:
                    progress("indexing shards", i + 1, len(shards))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return entries


def keep_entry(form: ShardFormat, shard: Shard, scan: Scan, content: str) -> Entry:
    """An entry for what was scanned already."""
    entry = Entry(shard, scan, content, _folder() / f"{shard.key}.npz")
    _write(entry, form)
    return replace(entry, scan=replace(scan, places={}))


def _entry(form: ShardFormat, store: Store, folder: Path, shard: Shard) -> Entry:
    file = folder / f"{shard.key}.npz"
    known = _read(file, shard, repr(form))
    if known is not None:
        return known
    # The end of a Parquet file says what is in it, so a remote one need not be copied to this machine for that.
    reading = store if form.scan_reads_all or not shard.remote else Store(0)
    scan = form.scan(reading, shard)
    if shard.remote and shard.mark:
        content = shard.mark
    else:
        with store.open(shard) as opened:
            content = digest(opened)
    entry = Entry(shard, scan, content, file)
    _write(entry, form)
    return replace(entry, scan=replace(scan, places={}))


def _folder() -> Path:
    """Where indexes are kept: in the user's cache, or if that cannot be written to, until the machine is cleaned up."""
    folder = cache_folder() / "indexes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="unnoise-indexes-"))


def _write(entry: Entry, form: ShardFormat) -> None:
    scan = entry.scan
    about = {
        "format": FORMAT,
        "form": repr(form),
        "count": scan.count,
        "class_names": scan.class_names,
        "captioned": scan.captioned,
        "uncaptioned": scan.uncaptioned,
        "at_once": scan.at_once,
        "notes": scan.notes,
        "content": entry.content,
    }
    arrays = {f"at_{name}": values for name, values in scan.places.items()}
    if scan.labels is not None:
        arrays["labels"] = scan.labels
    stream = io.BytesIO()
    np.savez(stream, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    write_atomically(entry.file, stream.getvalue())


def _read(file: Path, shard: Shard, form: str) -> Entry | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT or about["form"] != form:
                return None
            labels = arrays["labels"] if "labels" in arrays.files else None
            names, notes = tuple(about["class_names"]), tuple(about["notes"])
            captions = {name: about[name] for name in ("captioned", "uncaptioned")}
            scan = Scan(about["count"], {}, labels, names, at_once=about["at_once"], notes=notes, **captions)
            return Entry(shard, scan, about["content"], file)
    except (OSError, ValueError, EOFError, KeyError):  # not there, or not whole
        return None
