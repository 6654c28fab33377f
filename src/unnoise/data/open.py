"""A path, and the data source that reads what stands there."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from ..errors import DataError, nearest
from ._pixels import picture_suffixes
from .base import DataSource, datasets
from .streaming.store import is_url

_BY_SUFFIX = {
    ".parquet": "parquet",
    ".npy": "array",
    ".npz": "array",
    ".csv": "csv",
    ".tar": "shards",
    ".arrow": "shards",
}
_SUPPORTED = (
    "a folder of images, a .parquet file, pattern or folder, .tar or .arrow shards, a URL of shards, a .npy or .npz array, "
    "or a .csv table"
)


def source_of(path: str | Path, stream: bool = False, **options: Any) -> DataSource:
    """The source that reads what stands at a path: images, Parquet, shards, NumPy or CSV.

    Args:
        path: A folder, a file, a pattern that matches .parquet or .tar files, or a URL.
        stream: Whether the samples are read as they are needed, also where they could be held in memory.
        **options: Of that source, by name.

    Raises:
        DataError: Nothing stands there, or nothing that can be read.
        BadOption: The source has no such option, or its value is wrong.
    """
    name = "shards" if stream or is_url(str(path)) else _name_of(Path(path).expanduser())
    source: DataSource = datasets.build({**options, "path": str(path), "name": name})
    return source


def _shipped_like(path: Path) -> str:
    """Which data set that comes with unnoise may be meant, for a message; empty for what can only be a place on a disk."""
    if len(path.parts) != 1 or path.suffix:
        return ""
    shipped = [name for name in datasets if "path" not in datasets.schema(name)]
    return f", and no data set of that name comes with unnoise{nearest(str(path), shipped)}"


def _name_of(path: Path) -> str:
    if path.is_dir():
        for kind, name in ((".parquet", "parquet"), (".tar", "shards"), (".arrow", "shards")):
            if next(path.rglob(f"*{kind}"), None):
                return name
        return "folder"
    if not path.exists():
        known = _BY_SUFFIX.get(path.suffix)
        if glob.has_magic(str(path)) and known in ("parquet", "shards") and glob.glob(str(path), recursive=True):
            return known
        raise DataError(f"there is nothing at {path}{_shipped_like(path)}: give {_SUPPORTED}")
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in picture_suffixes():
        raise DataError(f"{path} is a single image: give the folder that holds it")
    raise DataError(f"{path} cannot be read: give {_SUPPORTED}")
