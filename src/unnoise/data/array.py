"""NumPy files: images, points, or arrays of any other shape."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..options import option
from ._labels import number_labels
from .base import Dataset, DataSource, Kind, Progress, Spec, datasets

LABEL_KEYS = ("labels", "y")
_CHANNELS = (1, 3, 4)


@datasets.register("array")
@dataclass(frozen=True)
class ArrayDataset(DataSource):
    """The samples of a .npy file, or of a .npz file with an array "x" (or one array only) and perhaps "labels" or "y".

    uint8 of shape (N, H, W), (N, C, H, W) or (N, H, W, C), with 1, 3 or 4 channels, gives images; (N, D) or (N,) gives
    points; every other shape arrays. Where both could be the channels, they come first. Pickled objects are never read.

    Args:
        path: The file.
    """

    path: str = option(help="a .npy or .npz file")

    def load(self, progress: Progress | None = None) -> Dataset:
        """The samples: images uint8 of shape (N, C, H, W), points float32 (N, D), arrays float32 (N, ...).

        Raises:
            DataError: The file does not exist, cannot be read, or holds no numbers, or its labels do not fit.
        """
        path = Path(self.path).expanduser()
        values, labels = read_arrays(path)
        if values.dtype.kind not in "uifb" or values.ndim == 0:
            raise DataError(f"{path}: expected numbers of shape (N, ...), got {values.dtype} of shape {values.shape}")
        kind, x = _samples(values)
        numbers, names = (None, ()) if labels is None else _labels(path, labels, len(x))
        return Dataset(x, Spec(kind, tuple(x.shape[1:]), names), numbers)


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The samples and the labels of a NumPy file, as they are; a .npy file is mapped into memory, copy-on-write.

    Raises:
        DataError: The file does not exist, cannot be read, or does not say which array holds the samples.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start == b"\x93NUMPY":
                return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False)), None
            if not start.startswith(b"PK"):
                raise ValueError("it is no NumPy file")
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}: check data.path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "bject" in str(error):
            raise DataError(f"{path} holds Python objects, which are never read: save an array of numbers") from None
        what = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read: {what}; save it with numpy.save or numpy.savez") from None
    samples = [name for name in found if name not in LABEL_KEYS]
    if "x" not in found and len(samples) != 1:
        raise DataError(f"{path} holds the arrays {', '.join(found) or 'none'}: call the one with the samples x")
    labels = next((found[name] for name in LABEL_KEYS if name in found), None)
    return found["x" if "x" in found else samples[0]], labels


def _samples(values: NDArray[Any]) -> tuple[Kind, Tensor]:
    if values.dtype == np.uint8 and values.ndim == 3:
        return "image", torch.from_numpy(values[:, None])
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[1] in _CHANNELS:
        return "image", torch.from_numpy(values)
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] in _CHANNELS:
        return "image", torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, 3, 1)))
    with np.errstate(over="ignore"):  # beyond float32 becomes infinity, which Dataset.check refuses by number
        numbers = values.astype(np.float32, copy=False)
    if numbers.ndim == 1:
        numbers = numbers[:, None]
    return "points" if numbers.ndim == 2 else "array", torch.from_numpy(numbers)


def _labels(path: Path, labels: NDArray[Any], count: int) -> tuple[Tensor, tuple[str, ...]]:
    if labels.shape != (count,):
        raise DataError(f"{path}: expected labels of shape ({count},), one for each sample, got {labels.shape}")
    if labels.dtype.kind not in "uiUb":
        raise DataError(f"{path}: expected whole numbers or words as labels, got {labels.dtype}: convert them")
    return number_labels(labels.tolist())
