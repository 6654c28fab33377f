"""The page that tells what a model's error is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...pictures.curves import loss_by_time
from ...pictures.page import Page, Picture
from . import words
from .levels import Levels
from .page import HALF, WIDE, picture_of
from .parts import ErrorParts, table
from .real import RealData


def write_parts_page(parts: ErrorParts, real: RealData, command: str = "") -> Path:
    """Writes `index.html`, which needs nothing but itself.

    Args:
        parts: What was found.
        real: What the samples were held against.
        command: The command that a person gave.
    """
    whole = parts.judged["as asked"].result
    n, name = whole.values["subject"]["n"], whole.values["subject"]["name"]
    page = Page(f"What is wrong with {name}?", f"{n:,} samples of each kind, with 95 % intervals.")
    page.text(f"**{parts.sentence}**")
    page.heading("The parts")
    head, *lines = table(parts)
    page.table(
        list(head),
        [list(line) for line in lines],
        f"What each part adds to the {words.title(parts.metric)}; less than zero brings the samples nearer to the data. "
        "All kinds of samples are made of the same noise, so that a difference is surer than its interval says.",
    )
    for told, line in parts.told:
        page.text(f"**{told}**: {line}")
    page.heading("The samples")
    pictures = {"real data": picture_of(real.reference.x, real, real=True)}
    pictures |= {key: picture_of(each.result.made, real) for key, each in parts.judged.items()}
    page.columns([Picture(drawn, key, f"Samples: {key}", HALF) for key, drawn in pictures.items() if drawn is not None])
    page.heading("The denoiser at each noise level")
    _levels(page, parts.levels)
    if command:
        page.code(command)
    return page.save(parts.folder / "index.html")


def _levels(page: Page, levels: Levels) -> None:
    other, floor = levels.reference, levels.floor
    curve = loss_by_time(
        np.asarray(levels.loss.t),
        np.asarray(levels.loss.by_time),
        None if floor is None else np.asarray(floor.by_time),
        beside=None if other is None else {other.name: np.asarray(other.loss.by_time)},
    )
    which = "samples that it learned from" if levels.seen else "samples that nobody learned"
    page.picture(curve, f"The loss on {which}. {levels.sentence}", width=WIDE // 2)
