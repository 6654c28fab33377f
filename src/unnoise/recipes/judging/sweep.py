"""One model over two settings: a picture of every pair of values, and what each number makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.base import Progress
from ...errors import BadOption
from ...evaluation.metrics.base import Estimate, metrics
from ...files import write_atomically
from ...model import Model
from ...model_folder import folder_beside
from ...options import build, option_fields
from ...pictures.heatmap import heatmap, picture_matrix
from ...pictures.page import Page
from . import words
from .page import WIDE, picture_of, png
from .plan import EvaluationSettings
from .real import real_data
from .run import default_folder, judge
from .subject import ModelSubject, Request

SHOWN = 9
"""Samples in a cell of the picture."""


@dataclass(frozen=True)
class Axis:
    """A setting, and the values that it takes.

    Args:
        name: Of an option of `Request`, such as steps or guidance.
        values: As they were typed.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """From "steps=5,10,20".

        Raises:
            BadOption: It is not of that form, or there is no such setting.
        """
        name, equals, values = text.partition("=")
        known = option_fields(Request)
        found = tuple(part.strip() for part in values.split(",") if part.strip())
        if not equals or not found:
            raise BadOption(f"expected setting=value,value,..., such as steps=5,10,20, got {text!r}")
        if name.strip() not in known:
            raise BadOption(f"{name.strip()}: there is no such setting; there are {', '.join(known)}")
        return cls(name.strip(), found)


@dataclass(frozen=True)
class Sweep:
    """Every pair of values, sampled and measured.

    Args:
        x: Across.
        y: Down; None for a single row.
        cells: By row and column, the numbers of each.
        pictures: By row and column.
        folder: Where it all stands.
        files: What was written.
    """

    x: Axis
    y: Axis | None
    cells: tuple[tuple[dict[str, Estimate], ...], ...]
    pictures: tuple[tuple[Image.Image | None, ...], ...]
    folder: Path
    files: tuple[Path, ...]


def sweep(
    model: Model,
    x: Axis,
    y: Axis | None = None,
    *,
    request: Request | None = None,
    settings: EvaluationSettings | None = None,
    data: str | None = None,
    n: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
) -> Sweep | None:
    """Samples a model at every pair of two settings' values, from the same noise, and measures each.

    Args:
        model: What is sampled.
        x: The setting across.
        y: The setting down, or None.
        request: The settings that stay.
        settings: What is measured; by default the kernel distance and whether labels are met, or the energy distance of
            points.
        data: Real data; what the run learned by default.
        n: Samples of each pair; 256 of pictures, 500 of points by default.
        out: Where it is kept; `grid` beside the model by default.
        progress: Told what is being done.
        stop: Asked between blocks of samples.
        command: The command that a person gave, for the page.

    Returns:
        The sweep; None where it was stopped.

    Raises:
        BadOption: A value is wrong, or both settings are the same.
        UnnoiseError: As in `evaluate`.
    """
    if y is not None and x.name == y.name:
        raise BadOption(f"x and y are both {x.name}: give two settings")
    real = real_data(model, data, progress=progress, copies=False)
    count = (500 if model.spec.kind == "points" else 256) if n is None else n
    asked = Request() if request is None else request
    rows = [_with(asked, y, value) for value in (y.values if y else ("",))]
    requests = [[_with(row, x, value) for value in x.values] for row in rows]
    subjects = [[ModelSubject(model, each, real.reference, real.held_out) for each in row] for row in requests]
    if settings is None:
        settings = _default_settings(subjects[0][0])
    settings = replace(settings, memorisation=False, baseline=False)
    cells, pictures = [], []
    done, total = 0, len(subjects) * len(subjects[0])
    for line in subjects:
        numbers, drawn = [], []
        for subject in line:
            if progress is not None:
                progress("cells", done, total)
            one = judge(subject, real, settings, default_folder(subject), count, None, stop, page=False)
            if one is None:
                return None
            numbers.append(dict(one.result.estimates))
            drawn.append(picture_of(one.result.made, real, most=SHOWN))
            done += 1
        cells.append(tuple(numbers))
        pictures.append(tuple(drawn))
    if progress is not None:
        progress("cells", total, total)
    folder = Path(out) if out is not None else folder_beside(model.path, "grid")
    made = Sweep(x, y, tuple(cells), tuple(pictures), folder, ())
    return replace(made, files=tuple(_keep(made, count, command)))


def _with(request: Request, axis: Axis | None, value: str) -> Request:
    if axis is None:
        return request
    values: dict[str, Any] = {name: getattr(request, name) for name in option_fields(Request)}
    return build(Request, {**values, axis.name: value})


def _default_settings(subject: ModelSubject) -> EvaluationSettings:
    if subject.spec.kind == "points":
        return EvaluationSettings(metrics=("energy",))
    return EvaluationSettings(metrics=("kid", "accuracy") if subject.labels(1) is not None else ("kid",))


def _labels(axis: Axis | None) -> list[str]:
    return [""] if axis is None else list(axis.values)


def _keep(made: Sweep, n: int, command: str) -> list[Path]:
    folder, x, y = made.folder, made.x, made.y
    folder.mkdir(parents=True, exist_ok=True)
    over = f"{x.name}-{y.name}" if y else x.name
    page = Page(f"{x.name}{f' and {y.name}' if y else ''}", f"{n:,} samples in every cell, all from the same noise.")
    written: list[Path] = []

    def keep(name: str, picture: Image.Image, caption: str) -> None:
        path = folder / f"{over}-{name}.png"
        write_atomically(path, png(picture))
        written.append(path)
        page.picture(picture, caption, caption, min(WIDE, picture.width))

    if all(each is not None for row in made.pictures for each in row):
        cells = [[each for each in row if each is not None] for row in made.pictures]
        drawn = picture_matrix(cells, _labels(y), _labels(x), ylabel=y.name if y else "", xlabel=x.name)
        keep("samples", drawn, "The first samples of each: the same noise all over.")
    for name in made.cells[0][0]:
        found = [[cell[name] for cell in row] for row in made.cells]
        drawn = heatmap(
            np.array([[each.value for each in row] for row in found]), _labels(y), _labels(x),
            half_widths=np.array([[(each.high - each.low) / 2 for each in row] for row in found]),
            ylabel=y.name if y else "", xlabel=x.name, title=words.title(name), better=metrics[name].better,
        )  # fmt: skip
        keep(name, drawn, f"{words.title(name)}: {metrics[name].better} is better; ± is half a 95 % interval.")
    if command:
        page.code(command)
    written.append(page.save(folder / f"{over}.html"))
    path = folder / f"{over}.json"
    write_atomically(path, (json.dumps(_values(made, n), indent=1) + "\n").encode())
    return [*written, path]


def _values(made: Sweep, n: int) -> dict[str, Any]:
    def plain(cells: Sequence[dict[str, Estimate]]) -> list[dict[str, Any]]:
        return [
            {name: {"value": each.value, "low": each.low, "high": each.high} for name, each in cell.items()}
            for cell in cells
        ]

    return {
        "holds": "grid",
        "n": n,
        "x": {"name": made.x.name, "values": list(made.x.values)},
        "y": None if made.y is None else {"name": made.y.name, "values": list(made.y.values)},
        "cells": [plain(row) for row in made.cells],
    }
