"""Two settings at once: pictures, or numbers on colours, in a table whose rows and columns have headings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from ..errors import BadOption, ShapeError
from . import style
from .arrays import Array, Floats, floats

Better = Literal["lower", "higher"]

_CELL = (92, 56)  # of a number, in pixels
_SEAM = 3  # between numbers
_VALUE, _HALF = 15, 11  # text sizes of a number, and of its half-width
_DECADE = 10.0  # numbers that span more are coloured by their logarithm
_BAR = (180, 10)


def picture_matrix(
    cells: Sequence[Sequence[Image.Image | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    ylabel: str = "",
    xlabel: str = "",
    *,
    title: str | None = None,
    gap: int = style.GAP,
) -> Image.Image:
    """Pictures in rows and columns, each of which has a heading: samples of a model over two of its settings.

    Args:
        cells: From the top row, each from left to right; None leaves a pale gap.
        rows: A heading for each row, on the left.
        columns: A heading for each column, above.
        ylabel: What the rows differ in, turned upright on the left.
        xlabel: What the columns differ in, above their headings.
        title: A line above all.
        gap: Pixels between the pictures.

    Raises:
        ShapeError: There is no picture at all, or there are not as many cells as headings.
    """
    pictures = [[None if cell is None else style.on_paper(cell) for cell in row] for row in cells]
    there = [picture for row in pictures for picture in row if picture is not None]
    if not there or len(pictures) != len(rows) or any(len(row) != len(columns) for row in pictures):
        counts = sorted({len(row) for row in pictures})
        raise ShapeError(
            f"expected cells in {len(rows)} rows of {len(columns)}, one of them a picture at least, got {len(pictures)} "
            f"rows of {' or '.join(map(str, counts)) or 'none'}"
        )
    usual = max(picture.width for picture in there), max(picture.height for picture in there)
    size = min(max(style.TEXT + 1, round(usual[0] / 16)), 26)
    line, edge = style.line_height(size), style.GAP
    widths = [max(usual[0], style.text_width(heading, size)) for heading in columns]
    left = edge + max(style.text_width(heading, size) for heading in rows) + 10 + (line + 4 if ylabel else 0)
    above = edge + (style.TITLE + edge if title else 0)
    top = above + line + 4 + (line + 2 if xlabel else 0)
    inner = sum(widths) + gap * (len(widths) - 1), usual[1] * len(rows) + gap * (len(rows) - 1)
    least = 2 * edge + (style.text_width(title, style.TITLE) if title else 0)
    right = max(left + inner[0], left + style.text_width(xlabel, size)) + edge
    upright = style.text_width(ylabel, size)
    sheet = Image.new("RGB", (max(right, least), top + max(inner[1], upright) + edge), style.PAPER)
    if title:
        style.write(sheet, (edge, edge - 2), title, style.TITLE)
    if xlabel:
        middle = left + max(inner[0], style.text_width(xlabel, size)) / 2
        style.write(sheet, (middle, above), xlabel, size, style.MUTED, "ma")
    if ylabel:
        _write_upright(sheet, (edge, top + (max(inner[1], upright) - upright) // 2), ylabel, size)
    x = left
    for j, (heading, width) in enumerate(zip(columns, widths, strict=True)):
        style.write(sheet, (x + width / 2, top - 6), heading, size, anchor="md")
        for i, row in enumerate(pictures):
            y, picture = top + i * (usual[1] + gap), row[j]
            if j == 0:
                style.write(sheet, (left - 10, y + usual[1] / 2), rows[i], size, anchor="rm")
            if picture is None:
                ImageDraw.Draw(sheet).rectangle((x, y, x + width - 1, y + usual[1] - 1), fill=style.WASH)
                style.write(sheet, (x + width / 2, y + usual[1] / 2), "–", size, style.MUTED, "mm")
            else:
                sheet.paste(picture, (x + (width - picture.width) // 2, y + (usual[1] - picture.height) // 2))
        x += width + gap
    return sheet


def _write_upright(sheet: Image.Image, xy: tuple[int, int], text: str, size: int) -> None:
    """A line that reads from bottom to top, its upper left corner at `xy`."""
    flat = Image.new("RGB", (style.text_width(text, size), style.line_height(size)), style.PAPER)
    style.write(flat, (0, 0), text, size, style.MUTED)
    sheet.paste(flat.rotate(90, expand=True), xy)


def heatmap(
    values: Array | Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    ylabel: str = "",
    xlabel: str = "",
    *,
    half_widths: Array | Sequence[Sequence[float]] | None = None,
    title: str | None = None,
    better: Better | None = None,
) -> Image.Image:
    """A matrix of numbers, each written on a colour, with the best of them framed.

    The darkest is the best where it is known which way is better, otherwise the largest. Numbers that are all positive and
    span more than a factor of 10 are coloured by their logarithm.

    Args:
        values: Shape (R, C); what is not finite is left pale.
        rows: R headings.
        columns: C headings.
        ylabel: What the rows differ in.
        xlabel: What the columns differ in.
        half_widths: Half the width of each number's interval, written under it, shape (R, C).
        title: What the numbers are.
        better: Which way is better.

    Raises:
        ShapeError: The arrays do not match the headings.
        BadOption: `better` is something else.
    """
    if better not in (None, "lower", "higher"):
        raise BadOption(f"better: expected 'lower', 'higher' or None, got {better!r}")
    numbers = _matrix("values", values, len(rows), len(columns))
    halves = None if half_widths is None else _matrix("half_widths", half_widths, len(rows), len(columns))
    places = _places(numbers)
    shades = 1 - places if better == "lower" else places
    best = None if better is None or np.isnan(places).all() else int(np.nanargmax(shades))
    cells = [
        [
            _cell(numbers[i, j], None if halves is None else halves[i, j], shades[i, j], i * len(columns) + j == best)
            for j in range(len(columns))
        ]
        for i in range(len(rows))
    ]
    table = picture_matrix(cells, rows, columns, ylabel=ylabel, xlabel=xlabel, title=title, gap=_SEAM)
    finite = numbers[np.isfinite(numbers)]
    return _with_bar(table, finite, better, halves is not None) if len(finite) else table


def _matrix(name: str, values: Array | Sequence[Sequence[float]], rows: int, columns: int) -> Floats:
    array = np.array(values, dtype=np.float64) if isinstance(values, (list, tuple)) else floats(values)  # type: ignore[arg-type]
    if array.shape != (rows, columns) or not array.size:
        raise ShapeError(f"expected {name} of shape ({rows}, {columns}), as the headings say, got {array.shape}")
    return array


def _places(values: Floats) -> Floats:
    """From 0 for the smallest to 1 for the largest; NaN for what is not finite."""
    finite = values[np.isfinite(values)]
    places = np.where(np.isfinite(values), values, np.nan)
    if not len(finite):
        return places
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > _DECADE * low:
        places, low, high = np.log(places), math.log(low), math.log(high)
    return (places - low) / (high - low) if high > low else np.where(np.isnan(places), np.nan, 0.5)


def number(value: float) -> str:
    """A number in about three digits, as it is written in a cell."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _cell(value: float, half: float | None, shade: float, best: bool) -> Image.Image:
    if not math.isfinite(value):
        cell = Image.new("RGB", _CELL, style.WASH)
        style.write(cell, (_CELL[0] / 2, _CELL[1] / 2), "–", _VALUE, style.MUTED, "mm")
        return cell
    red, green, blue = (int(c) for c in style.ramp(np.array([shade]))[0])
    cell = Image.new("RGB", _CELL, (red, green, blue))
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 150
    ink = style.INK if light else style.PAPER
    if half is None or not math.isfinite(half):
        style.write(cell, (_CELL[0] / 2, _CELL[1] / 2), number(value), _VALUE, ink, "mm")
    else:
        style.write(cell, (_CELL[0] / 2, _CELL[1] / 2 - 8), number(value), _VALUE, ink, "mm")
        style.write(cell, (_CELL[0] / 2, _CELL[1] / 2 + 12), f"± {number(half)}", _HALF, ink, "mm")
    if best:
        draw = ImageDraw.Draw(cell)
        draw.rectangle((0, 0, _CELL[0] - 1, _CELL[1] - 1), outline=style.PALETTE[1], width=3)
        draw.rectangle((3, 3, _CELL[0] - 4, _CELL[1] - 4), outline=style.PAPER)
    return cell


def _with_bar(table: Image.Image, finite: Floats, better: Better | None, halves: bool) -> Image.Image:
    """What the colours mean, under the table."""
    ends = [number(float(finite.min())), number(float(finite.max()))]
    words = "± half of a 95 % interval" if halves else ""
    if better is not None:
        ends = ends[::-1] if better == "lower" else ends
        words = f"{better} is better, the best is framed" + (f";  {words}" if words else "")
    size, edge = style.TEXT, style.GAP
    x = edge + style.text_width(ends[0], size) + 6
    after = x + _BAR[0] + 6 + style.text_width(ends[1], size) + 2 * edge
    one_line = after + style.text_width(words, size) + edge <= max(table.width, 420)
    width = max(table.width, after + (style.text_width(words, size) + edge if one_line else 0))
    width = max(width, 2 * edge + style.text_width(words, size))
    extra = edge + size + edge + (0 if one_line or not words else style.line_height(size))
    sheet = Image.new("RGB", (width, table.height + extra), style.PAPER)
    sheet.paste(table, (0, 0))
    middle = table.height + edge / 2 + size / 2
    colours = style.ramp(np.linspace(0, 1, _BAR[0]))
    bar = Image.fromarray(np.broadcast_to(colours[None], (_BAR[1], _BAR[0], 3)).copy())
    sheet.paste(bar, (x, round(middle - _BAR[1] / 2)))
    style.write(sheet, (edge, middle), ends[0], size, style.MUTED, "lm")
    style.write(sheet, (x + _BAR[0] + 6, middle), ends[1], size, style.MUTED, "lm")
    if words:
        at = (after, middle) if one_line else (edge, middle + style.line_height(size))
        style.write(sheet, at, words, size, style.MUTED, "lm")
    return sheet
