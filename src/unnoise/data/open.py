"""A path, and the data source that reads what stands there."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from ..errors import DataError
from ._pixels import picture_suffixes
from .base import DataSource, datasets

_BY_SUFFIX = {".parquet": "parquet", ".npy": "array", ".npz": "array", ".csv": "csv"}
_SUPPORTED = "a folder of images, a .parquet file, pattern or folder, a .npy or .npz array, or a .csv table"


def source_of(path: str | Path, **options: Any) -> DataSource:
    """The source that reads what stands at a path: images, Parquet, NumPy or CSV.

    Args:
        path: A folder, a file, or a pattern that matches .parquet files.
        **options: Of that source, by name.

    Raises:
        DataError: Nothing stands there, or nothing that can be read.
        BadOption: The source has no such option, or its value is wrong.
    """
    name = _name_of(Path(path).expanduser())
    source: DataSource = datasets.build({**options, "path": str(path), "name": name})
    return source


def _name_of(path: Path) -> str:
    if path.is_dir():
        return "parquet" if next(path.rglob("*.parquet"), None) else "folder"
    if not path.exists():
        if glob.has_magic(str(path)) and path.suffix == ".parquet" and glob.glob(str(path), recursive=True):
            return "parquet"
        raise DataError(f"there is nothing at {path}: give {_SUPPORTED}")
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in picture_suffixes():
        raise DataError(f"{path} is a single image: give the folder that holds it")
    raise DataError(f"{path} cannot be read: give {_SUPPORTED}")
