"""Tables of comma-separated values: each row a point."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..options import option
from ._labels import number_labels
from .base import Dataset, DataSource, Progress, Spec, datasets

LABEL_COLUMNS = ("label", "class")
_DELIMITERS = (",", ";", "\t")
_Row = tuple[int, list[str]]  # the line that it ends on, counted from 1, and its cells


@datasets.register("csv")
@dataclass(frozen=True)
class CsvDataset(DataSource):
    """The rows of a .csv file as points; a column called label or class holds their labels, words or whole numbers.

    The first line is the header if none of its cells is a number. Cells are divided by commas, semicolons or tabs,
    whichever the first line has most of.

    Args:
        path: The file, in UTF-8.
    """

    path: str = option(help="a .csv file")

    def load(self, progress: Progress | None = None) -> Dataset:
        """The points, float32 of shape (N, D), with their labels where there is such a column.

        Raises:
            DataError: The file cannot be read or has no rows, or a cell is no number: it is named by line and column.
        """
        path = Path(self.path).expanduser()
        rows = _read(path)
        header = rows.pop(0)[1] if rows and not any(_is_number(cell) for cell in rows[0][1]) else []
        if not rows:
            raise DataError(f"{path} has no rows of numbers: give a table with some")
        columns = header or [str(i + 1) for i in range(len(rows[0][1]))]
        label = next((i for i, name in enumerate(header) if name.lower() in LABEL_COLUMNS), None)
        x = _numbers(path, rows, columns, label)
        labels, names = (None, ()) if label is None else number_labels(_words(path, rows, columns, label))
        return Dataset(torch.from_numpy(x), Spec("points", (x.shape[1],), names), labels)


def _read(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}: check data.path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; save it as UTF-8") from None
    if text.startswith("# unnoise:"):  # a file of samples: its recipe is no row, but stays counted as a line
        text = "\n" + text.partition("\n")[2]
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count))
    try:
        rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        return [row for row in rows if any(row[1])]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _numbers(path: Path, rows: Sequence[_Row], columns: Sequence[str], label: int | None) -> NDArray[np.float32]:
    places = [i for i in range(len(columns)) if i != label]
    if not places:
        raise DataError(f"{path} has no columns of numbers beside {columns[0]!r}: give a table with some")
    x = np.empty((len(rows), len(places)), dtype=np.float32)
    for i, (line, cells) in enumerate(rows):
        if len(cells) != len(columns):
            raise DataError(f"{path}, line {line}: expected {len(columns)} cells, got {len(cells)}")
        try:
            x[i] = [float(cells[place]) for place in places]
        except ValueError:
            wrong = next(place for place in places if not _is_number(cells[place]))
            hint = ', or call the column "label" in a first line' if label is None else ""
            what = f"{cells[wrong]!r} is no number" if cells[wrong] else "the cell is empty"
            raise DataError(f"{path}, line {line}, column {columns[wrong]}: {what}: correct it{hint}") from None
    return x


def _words(path: Path, rows: Sequence[_Row], columns: Sequence[str], label: int) -> list[str]:
    for line, cells in rows:
        if not cells[label]:
            raise DataError(f"{path}, line {line}, column {columns[label]}: the label is missing: fill it in")
    return [cells[label] for _, cells in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
