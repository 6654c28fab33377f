"""Points on a line."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from . import style
from .arrays import Floats
from .window import Limits, Window, small_text, ticks

_SHARPER = 3


def histogram(
    values: Floats, size: int, limits: Limits | None = None, *, colour: str, background: Floats | None = None
) -> Image.Image:
    """The density of points on a line as bars, with that of the background as a line over them.

    Args:
        values: Shape (N,).
        size: The width, in pixels; the height is half of it.
        limits: (left, right, ...), or h for (-h, h); by default, around the background, else around the values.
        colour: Of the bars.
        background: Shape (M,).
    """
    left, right = _range(limits, background, values)
    view = Window(left, right, 0.0, (right - left) / 2, size)
    bins = np.linspace(left, right, max(8, min(64, round(2 * math.sqrt(max(len(values), 1))), size // 6)) + 1)
    bars = _density(values, bins)
    line = None if background is None else _density(background, bins)
    peak = max(bars.max(), 0.0 if line is None else line.max()) or 1.0
    width, height = view.shape
    floor = height - (small_text(size) + 6 if size >= 200 else 2)
    picture = Image.new("RGB", (width * _SHARPER, height * _SHARPER), style.WASH)
    draw = ImageDraw.Draw(picture)
    pale = tuple(round(0.75 * c + 0.25 * 255) for c in style.rgb(colour))
    x = (bins - left) * view.pixels_per_unit * _SHARPER
    for value in ticks(left, right, max(2, min(6, size // 90))):
        at = (value - left) * view.pixels_per_unit * _SHARPER
        draw.line([(at, 0), (at, floor * _SHARPER)], fill=style.FRAME if value == 0 else style.RULE, width=_SHARPER)
    top = (floor - bars / peak * floor * 0.92) * _SHARPER
    for i, y in enumerate(top):
        if bars[i] > 0:
            draw.rectangle((x[i] + _SHARPER / 2, y, x[i + 1] - _SHARPER / 2, floor * _SHARPER), fill=pale)
    if line is not None:
        y = np.repeat((floor - line / peak * floor * 0.92) * _SHARPER, 2)
        steps = list(zip(np.repeat(x, 2)[1:-1].tolist(), y.tolist(), strict=True))
        draw.line(steps, fill=style.INK, width=round(1.5 * _SHARPER), joint="curve")
    draw.line([(0, floor * _SHARPER), (picture.width, floor * _SHARPER)], fill=style.FRAME, width=_SHARPER)
    picture = picture.reduce(_SHARPER)
    if size >= 200:
        for value in ticks(left, right, max(2, min(6, size // 90))):
            at = (value - left) * view.pixels_per_unit
            style.write(picture, (at, height - 3), f"{value:g}", small_text(size), style.MUTED, "md")
    outside = len(values) - int(((values >= left) & (values <= right)).sum())
    return view.frame(picture, f"{outside:,} outside" if outside else "")


def _range(limits: Limits | None, *clouds: Floats | None) -> tuple[float, float]:
    if isinstance(limits, (int, float)):
        return -float(limits), float(limits)
    if limits is not None:
        return float(limits[0]), float(limits[1])
    for cloud in clouds:
        finite = cloud[np.isfinite(cloud)] if cloud is not None else ()
        if len(finite):
            low, high = float(np.min(finite)), float(np.max(finite))
            half = (high - low) * 0.58 or 1.0
            return (low + high) / 2 - half, (low + high) / 2 + half
    return -1.0, 1.0


def _density(values: Floats, bins: Floats) -> Floats:
    counts, _ = np.histogram(values[np.isfinite(values)], bins)
    return np.asarray(counts / max(len(values), 1) / (bins[1] - bins[0]), dtype=np.float64)
