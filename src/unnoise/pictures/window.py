"""The part of the plane that a picture of points shows, and its paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..errors import BadOption
from . import style
from .arrays import Floats

Limits = float | tuple[float, float, float, float]


@dataclass(frozen=True)
class Window:
    """A rectangle of the plane on a rectangle of pixels, with one scale for both axes and y upwards.

    Args:
        left: Smallest x.
        right: Largest x.
        bottom: Smallest y.
        top: Largest y.
        size: The longer side, in pixels.
    """

    left: float
    right: float
    bottom: float
    top: float
    size: int

    def __post_init__(self) -> None:
        edges = (self.left, self.right, self.bottom, self.top)
        if not all(map(math.isfinite, edges)) or self.left >= self.right or self.bottom >= self.top:
            raise BadOption(f"limits: expected left < right and bottom < top, got {edges}")
        if self.size < 8:
            raise BadOption(f"size: must be at least 8 pixels, got {self.size}")

    @property
    def pixels_per_unit(self) -> float:
        """The scale."""
        return self.size / max(self.right - self.left, self.top - self.bottom)

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width = (self.right - self.left) * self.pixels_per_unit
        height = (self.top - self.bottom) * self.pixels_per_unit
        return max(8, round(width)), max(8, round(height))

    def pixels(self, xy: Floats) -> Floats:
        """Where points of shape (N, 2) stand, in pixels from the top left corner."""
        return (xy - [self.left, self.top]) * [self.pixels_per_unit, -self.pixels_per_unit]

    def holds(self, xy: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which points of shape (N, 2) lie inside; those that are not finite do not."""
        return np.all((xy >= [self.left, self.bottom]) & (xy <= [self.right, self.top]), axis=1)  # type: ignore[no-any-return]

    def paper(self) -> Image.Image:
        """An empty picture with a faint grid, its numbers along the lower and the left edge."""
        width, height = self.shape
        picture = Image.new("RGB", (width, height), style.WASH)
        draw = ImageDraw.Draw(picture)
        num = max(2, min(6, self.size // 90))
        across, up = ticks(self.left, self.right, num), ticks(self.bottom, self.top, num)
        for x in across:
            at = self.pixels(np.array([[x, self.bottom]]))[0, 0]
            draw.line([(at, 0), (at, height)], fill=style.FRAME if x == 0 else style.RULE)
        for y in up:
            at = self.pixels(np.array([[self.left, y]]))[0, 1]
            draw.line([(0, at), (width, at)], fill=style.FRAME if y == 0 else style.RULE)
        if self.size >= 200:
            self._numbers(picture, across, up)
        return picture

    def _numbers(self, picture: Image.Image, across: list[float], up: list[float]) -> None:
        size = small_text(self.size)
        for x in across:
            at = self.pixels(np.array([[x, self.bottom]]))[0, 0]
            style.write(picture, (at + 3, picture.height - 3), f"{x:g}", size, style.MUTED, "ld")
        for y in up:
            at = self.pixels(np.array([[self.left, y]]))[0, 1]
            if at < picture.height - 2.5 * size:
                style.write(picture, (4, at - 1), f"{y:g}", size, style.MUTED, "ld")

    def frame(self, picture: Image.Image, note: str = "") -> Image.Image:
        """The picture with a hairline around it and a note in its upper right corner."""
        if note:
            size = small_text(self.size)
            at = (picture.width - 6, 5)
            box = ImageDraw.Draw(picture).textbbox(at, style.spelled(note), font=style.font(size), anchor="ra")
            ImageDraw.Draw(picture).rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=style.PAPER)
            style.write(picture, at, note, size, style.MUTED, "ra")
        ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=style.FRAME)
        return picture


def window(limits: Limits | None, size: int, *clouds: Floats | None, margin: float = 0.08) -> Window:
    """The window with the limits given, or a square one around the first cloud that has points.

    Args:
        limits: (left, right, bottom, top), or a number h for (-h, h, -h, h).
        size: The longer side, in pixels.
        *clouds: Points of shape (N, 2).
        margin: Free space on each side, as a share of the cloud's extent.
    """
    if isinstance(limits, (int, float)):
        return Window(-limits, limits, -limits, limits, size)
    if limits is not None:
        if len(limits) != 4:
            raise BadOption(f"limits: expected (left, right, bottom, top) or one number, got {limits!r}")
        return Window(*limits, size)
    for cloud in clouds:
        finite = cloud[np.isfinite(cloud).all(1)] if cloud is not None else ()
        if len(finite):
            low, high = np.min(finite, 0), np.max(finite, 0)
            half = float((high - low).max()) * (0.5 + margin) or 1.0
            x, y = (low + high) / 2
            return Window(float(x - half), float(x + half), float(y - half), float(y + half), size)
    return Window(-1.0, 1.0, -1.0, 1.0, size)


def ticks(low: float, high: float, num: int) -> list[float]:
    """About `num` round numbers strictly inside an interval."""
    raw = (high - low) / max(num, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= raw * 0.99)
    first = math.floor(low / step) + 1
    values = (round(i * step, 12) for i in range(first, first + 2 * num + 2))
    return [value for value in values if low < value < high]


def small_text(size: int) -> int:
    """The height of small print on a picture of this size, in pixels."""
    return max(9, round(size / 42))
