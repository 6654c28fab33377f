"""What an edit begins from: as a person hands it over, as a text that the recipe of a file can hold, and as data again."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.base import Spec
from ..data.one_picture import one_picture
from ..errors import BadOption, DataError

PICTURE = "data:image/png;base64,"
NUMBERS = "data:application/octet-stream;base64,"
"""Before the values of data that is no picture, float32 (of images uint8) in the order of memory, lowest byte first."""
Values = NDArray[np.uint8] | NDArray[np.float32]


def beginning_texts(found: Any, spec: Spec, n: int) -> str | list[str]:
    """What n samples begin from, as texts that hold it whole, in the model's own size.

    Args:
        found: A file, a picture, an array, or such a text; or one for each sample, as a list or an array of n.
        spec: What a sample is.
        n: How many there are.

    Returns:
        One text for all, or n.

    Raises:
        BadOption: It is something else, of another size that cannot be changed, or not as many as the samples.
        DataError: A file or a picture cannot be read.
    """
    if isinstance(found, (list, tuple)) and not are_numbers(found):
        each: Sequence[Any] = found
    elif isinstance(found, Image.Image) or (isinstance(found, (str, Path)) and not _holds_array(found)):
        return _text(found, spec)
    else:
        array = _loaded(found) if isinstance(found, (str, Path)) else _array(found)
        if array.ndim <= len(spec.shape) or len(array) == 1:
            return _text(array[0] if array.ndim > len(spec.shape) else array, spec)
        each = list(array)
    if len(each) != n:
        raise BadOption(f"image: expected one, or one for each of {n} samples, got {len(each)}")
    return [_text(one, spec) for one in each]


def read_beginning(text: str, spec: Spec) -> Tensor:
    """The data that a text of `beginning_texts` holds, shape of a sample: uint8 of images, else float32."""
    return torch.from_numpy(np.array(_values(text, spec)))


def _text(found: Any, spec: Spec) -> str:
    values = _values(found, spec)
    if spec.kind != "image" or values.shape[0] not in (1, 3, 4):
        return NUMBERS + base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()
    pixels = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return PICTURE + base64.b64encode(buffer.getvalue()).decode()


def _values(found: Any, spec: Spec) -> Values:
    """One thing to begin from as an array of a sample's shape and numbers."""
    if isinstance(found, str) and found.startswith("data:"):
        head, _, body = found.partition(",")
        try:
            content = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if not head.endswith(";base64") or not content:
            raise BadOption(f"image: expected {PICTURE} and base64 after it, got {found[:40]!r}")
        return _raw(content, spec) if f"{head}," == NUMBERS else _pixels(content, spec, "image")
    if isinstance(found, (str, Path)):
        if _holds_array(found):
            return _checked(_loaded(found), spec)
        return _pixels(Path(found).expanduser(), spec, f"image: {found}")
    if isinstance(found, Image.Image):
        return _pixels(found, spec, "image")
    return _checked(_array(found), spec)


def _pixels(source: bytes | Path | Image.Image, spec: Spec, where: str) -> Values:
    if spec.kind != "image" or spec.shape[0] not in (1, 3, 4):
        raise BadOption(f"image: the model makes no pictures: give an array of shape {spec.shape}, or a .npy or .npz")
    channels, height, width = spec.shape
    return one_picture(source, (height, width), channels, where)


def _raw(content: bytes, spec: Spec) -> Values:
    kind = np.dtype(np.uint8 if spec.kind == "image" else "<f4")
    expected = math.prod(spec.shape) * kind.itemsize
    if len(content) != expected:
        raise BadOption(f"image: expected the {expected} bytes of data of shape {spec.shape}, got {len(content)}")
    return _checked(np.frombuffer(content, kind).reshape(spec.shape), spec)


def _checked(array: NDArray[Any], spec: Spec) -> Values:
    """An array as data of the model; a picture with its channels last is brought to the model's size, as files are."""
    if spec.kind != "image":
        if array.shape != spec.shape or array.dtype.kind not in "fiu":
            raise BadOption(f"image: expected numbers of shape {spec.shape}, got {array.dtype} {array.shape}")
        numbers = array.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise BadOption("image: some of its numbers are infinite, or none")
        return numbers
    if array.dtype.kind in "iu" and array.size and 0 <= array.min() and array.max() <= 255:
        pixels = array.astype(np.uint8)
        if array.shape == spec.shape:
            return pixels
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4)):
            return _pixels(Image.fromarray(pixels), spec, "image")
    raise BadOption(
        f"image: expected a picture, or whole numbers in [0, 255] of shape {spec.shape}, got {array.dtype} {array.shape}"
    )


def are_numbers(found: Any) -> bool:
    """Whether this is a number, or nested lists that hold some, as JSON writes an array."""
    while isinstance(found, (list, tuple)) and found:
        found = found[0]
    return isinstance(found, (int, float))


def _array(found: Any) -> NDArray[Any]:
    if isinstance(found, Tensor):
        found = (found.float() if found.is_floating_point() else found).detach().cpu()
    try:
        array = np.asarray(found)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(())
    if not array.ndim:
        raise BadOption(f"image: expected a file, a picture or an array, got {str(found)[:60]!r}")
    return array


def _holds_array(file: str | Path) -> bool:
    return not str(file).startswith("data:") and Path(file).suffix.lower() in (".npy", ".npz")


def _loaded(file: str | Path) -> NDArray[Any]:
    """The array of a file; of a .npz the one called x, as `unnoise sample` writes it."""
    try:
        with Path(file).expanduser().open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
            return np.asarray(found["x"] if isinstance(found, np.lib.npyio.NpzFile) else found)
    except FileNotFoundError:
        raise DataError(f"image: there is no file {file}") from None
    except Exception as error:  # what numpy and zipfile raise for a damaged file has no common root
        raise DataError(f"image: {file} holds no array that can be read: {' '.join(str(error).split())}") from None
