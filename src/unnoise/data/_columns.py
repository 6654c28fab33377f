"""The columns of Parquet tables: which there are, and what their labels, captions and numbers say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ._labels import number_labels

if TYPE_CHECKING:
    import pyarrow as pa


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of a column's classes by the Hugging Face metadata of its file; empty where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


def check_labels(values: pa.ChunkedArray, column: str, where: str = "") -> None:
    """Refuses labels of which some are missing, or which are of a type that is no label.

    Args:
        values: The column.
        column: Its name, for messages.
        where: The file, for messages; empty where there is only one.

    Raises:
        DataError: They cannot be labels.
    """
    from pyarrow import types

    kind, remedy, of = _kind(values), _remedy(column), f" of {where}" if where else ""
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind)):
        raise DataError(f"labels must be whole numbers or words, got {kind}: set data.label_column to another {remedy}")
    if values.null_count:
        first = values.is_null().to_pylist().index(True)
        missing = f"labels missing for {values.null_count} of {len(values)} rows{of}"
        raise DataError(f"{missing}, e.g. row {first}: fill them in {remedy}")


def check_range(labels: NDArray[np.int64], names: tuple[str, ...], column: str, where: str = "") -> None:
    """Refuses labels that are none of the classes.

    Args:
        labels: Shape (N,).
        names: Of the classes.
        column: The column's name, for messages.
        where: The file, for messages; empty where there is only one.

    Raises:
        DataError: Some are negative or too large.
    """
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        row, of = int(outside.argmax()), f" of {where}" if where else ""
        what = f"label {labels[row]} of row {row}{of} is none of the {len(names)} classes"
        raise DataError(f"{what}: correct it {_remedy(column)}")


def _kind(values: pa.ChunkedArray) -> pa.DataType:
    from pyarrow import types

    return values.type.value_type if types.is_dictionary(values.type) else values.type


def _remedy(column: str) -> str:
    return f'or set data.label_column="" to go without labels (column {column!r})'


def read_labels(values: pa.ChunkedArray, column: str, names: tuple[str, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """The labels of a column.

    Args:
        values: The column, of N whole numbers, words or truth values.
        column: Its name, for messages.
        names: The class names that the file gives; the distinct labels when empty.

    Returns:
        Shape (N,), int64, and the class names.

    Raises:
        DataError: Some labels are missing, are of another type, or lie outside of the class names.
    """
    from pyarrow import types

    check_labels(values, column)
    if not (names and types.is_integer(_kind(values))):
        return number_labels(values.to_pylist())
    labels = values.to_numpy().astype(np.int64)
    check_range(labels, names, column)
    return torch.from_numpy(labels), names


def read_texts(values: pa.ChunkedArray, column: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The captions of a column, if every row has one.

    Args:
        values: The column, of N strings, or of N lists of strings, which are put together with commas.
        column: Its name, for messages.

    Returns:
        N captions or None, and a line that says so when some rows have none.

    Raises:
        DataError: The column does not hold strings.
    """
    from pyarrow import types

    listed = types.is_list(values.type) or types.is_large_list(values.type)
    kind = values.type.value_type if listed else values.type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"captions must be strings, got {values.type}: set data.text_column to another than {column!r}")
    if values.null_count:
        first = values.is_null().to_pylist().index(True)
        told = f"{values.null_count} of {len(values)} rows have none in column {column!r}, e.g. row {first}"
        return None, (f"captions: none are used, for {told}",)
    rows = values.to_pylist()
    return tuple(", ".join(filter(None, row)) for row in rows) if listed else tuple(rows), ()


def numeric_columns(schema: pa.Schema, label_column: str, *text_columns: str) -> tuple[list[str], tuple[str, ...]]:
    """The columns that make points: numbers, other than labels and classes.

    Args:
        schema: Of the file.
        label_column: Left out.
        text_columns: Left out.

    Returns:
        The names, and a line for each column that is left out because it holds something else.

    Raises:
        DataError: There are none, or the table holds lists, bytes or structs, so that it is no table of points.
    """
    from pyarrow import types

    columns, notes = [], []
    for field in schema:
        if types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type):
            raise DataError(
                f"no image column is named, and column {field.name!r} holds {field.type}, which makes no points: "
                f"name the column of images with data.image_column (columns: {', '.join(schema.names)})"
            )
        if field.name in (label_column, *text_columns):
            continue
        if class_names(schema, field.name):
            notes.append(f"column {field.name!r}: holds classes, not numbers")
        elif types.is_integer(field.type) or types.is_floating(field.type):
            columns.append(field.name)
        else:
            notes.append(f"column {field.name!r}: holds {field.type}, not numbers")
    if not columns:
        raise DataError(f"there is no image column and no column of numbers (columns: {', '.join(schema.names)})")
    return columns, tuple(notes)


def read_numbers(table: pa.Table, columns: list[str]) -> Tensor:
    """Columns of numbers as points, shape (N, D), float32; NaN where a cell is empty."""
    values: list[NDArray[np.float32]] = [table.column(name).to_numpy().astype(np.float32) for name in columns]
    return torch.from_numpy(np.stack(values, axis=1))
