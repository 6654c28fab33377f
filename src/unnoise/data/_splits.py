"""The parts into which published data is divided by the names of its files: train, test, validation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from ..errors import DataError

T = TypeVar("T")

_SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation",
           "val": "validation", "dev": "validation"}  # fmt: skip
_WORD = re.compile(r"[a-z]+")


def split_of(name: str) -> str | None:
    """The split that a file belongs to by its relative name, as of "data/train-00000-of-00002.parquet"; None without."""
    for part in reversed(PurePath(name).parts):
        word = _WORD.match(part.lower())
        if word is not None and word[0] in _SPLITS:
            return _SPLITS[word[0]]
    return None


def named_split(items: Sequence[T], name_of: Callable[[T], str], split: str) -> tuple[list[T], tuple[str, ...]]:
    """The files of a split.

    Args:
        items: The files.
        name_of: Gives the name of each, relative to where the data stands.
        split: "train", "test", "validation"; "all"; or "auto" for train where there are such files and others too.

    Returns:
        The files, and a line that says which were left out.

    Raises:
        DataError: There are none.
    """
    found = [split_of(name_of(item)) for item in items]
    wanted = _SPLITS.get(split, split)
    if split == "auto":
        wanted = "train" if "train" in found and len(set(found)) > 1 else "all"
    if wanted == "all":
        return list(items), ()
    chosen = [item for item, name in zip(items, found, strict=True) if name == wanted]
    if not chosen:
        known = ", ".join(sorted({name for name in found if name})) or "none"
        raise DataError(
            f"data.split: none of the {len(items)} files belongs to {split!r}; by their names there are: {known}"
        )
    others = Counter(name or "files of no split" for name in found if name != wanted)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(others.items()))
    return chosen, ((f"files of other splits: {listed}; data.split=all reads them too",) if others else ())


def of_split(files: Sequence[Path], root: Path, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """The same for files of this machine, below a folder or beside each other."""
    known = root if root.is_dir() else None

    def name_of(file: Path) -> str:
        return str(file.relative_to(known)) if known is not None and file.is_relative_to(known) else file.name

    return named_split(files, name_of, split)
