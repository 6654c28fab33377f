"""Clouds of points and fields of arrows in the plane."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..errors import BadOption, ShapeError
from . import style
from .arrays import Array, Floats, series, vectors
from .histogram import histogram
from .window import Limits, Window, window

_SHARPER = 3  # arrows are drawn this much larger, then averaged
_AT_ONCE = 20_000  # points stamped in one go, to bound memory


def scatter(
    points: Array,
    size: int = 480,
    limits: Limits | None = None,
    *,
    labels: Array | None = None,
    colour: str = style.PALETTE[0],
    background: Array | None = None,
    radius: float | None = None,
) -> Image.Image:
    """A cloud of points, with y upwards and one scale for both axes; where points lie on each other the ink is darker.

    Of more than two coordinates the first two are drawn. One coordinate gives a histogram of half the height, with the
    background's as a line; it has no labels and no radius. Points that the limits leave out are counted in the corner.

    Args:
        points: Shape (N, D).
        size: The longer side, in pixels.
        limits: (left, right, bottom, top), which lie on the picture's edges, or h for (-h, h, -h, h); by default, a
            square around the background, else around the points.
        labels: Shape (N,), whole numbers; each has its colour.
        colour: Of points without labels.
        background: Shape (M, D), drawn faintly behind the points: the data.
        radius: Of a point, in pixels; by default, the smaller the more there are.

    Raises:
        ShapeError: Points, background or labels have another shape.
        BadOption: The limits, the size or the radius make no picture.
    """
    cloud, behind = vectors("points", points), None if background is None else vectors("background", background)
    if behind is not None and (behind.shape[1] == 1) != (cloud.shape[1] == 1):
        raise ShapeError(f"expected a background of shape (M, {cloud.shape[1]}), as the points, got {behind.shape}")
    if radius is not None and not radius > 0:
        raise BadOption(f"radius: must be more than 0, got {radius}")
    if cloud.shape[1] == 1:
        return histogram(cloud[:, 0], size, limits, colour=colour, background=None if behind is None else behind[:, 0])
    cloud, behind = cloud[:, :2], None if behind is None else behind[:, :2]
    colours = _colours(len(cloud), labels, colour)
    view = window(limits, size, behind, cloud)
    picture = view.paper()
    if behind is not None:
        picture = _stamp(picture, view, behind, _colours(len(behind), None, style.FAINT), None, 0.5)
    opacity = 0.72 * min(1.0, (6000 / max(len(cloud), 1)) ** 0.5)
    picture = _stamp(picture, view, cloud, colours, radius, opacity)
    outside = len(cloud) - int(view.holds(cloud).sum())
    return view.frame(picture, f"{outside:,} outside" if outside else "")


def _colours(num: int, labels: Array | None, colour: str) -> NDArray[np.float64]:
    if labels is None:
        return np.broadcast_to(np.array(style.rgb(colour), dtype=np.float64), (num, 3))
    palette = np.array([style.rgb(each) for each in style.PALETTE], dtype=np.float64)
    return palette[series("labels", labels, num).astype(np.int64) % len(palette)]


def _stamp(
    picture: Image.Image, view: Window, cloud: Floats, colours: Floats, radius: float | None, opacity: float
) -> Image.Image:
    """The picture under round, smooth dots: like ink, two dots of opacity o let (1 - o)^2 of the paper through."""
    inside = view.holds(cloud)
    cloud, colours = view.pixels(cloud[inside]).astype(np.float32), colours[inside]
    if not len(cloud):
        return picture
    if radius is None:
        radius = view.size / 480 * min(max(2.3 * (2000 / len(cloud)) ** 0.2, 1.1), 3.6)
    reach = math.ceil(radius + 0.5)
    width, height = picture.width + 2 * reach + 1, picture.height + 2 * reach + 1
    layers = np.zeros((4, height * width))  # depth of ink, then depth times colour
    offsets = np.arange(-reach, reach + 1)
    one_colour = bool((colours == colours[:1]).all())
    for start in range(0, len(cloud), _AT_ONCE):
        xy, paint = cloud[start : start + _AT_ONCE], colours[start : start + _AT_ONCE]
        pixel = np.floor(xy).astype(np.int64)[:, :, None] + offsets
        away = (pixel + 0.5 - xy[:, :, None]).astype(np.float32) ** 2
        depth = np.clip(radius + 0.5 - np.sqrt(away[:, 1, :, None] + away[:, 0, None, :]), 0, 1)
        index = ((pixel[:, 1, :, None] + reach) * width + pixel[:, 0, None, :] + reach).ravel()
        layers[0] += np.bincount(index, depth.ravel(), height * width)
        for i in range(0 if one_colour else 3):
            layers[i + 1] += np.bincount(index, (depth * paint[:, i, None, None]).ravel(), height * width)
    if one_colour:
        layers[1:] = layers[0] * colours[0][:, None]
    ink = layers.reshape(4, height, width)[:, reach : reach + picture.height, reach : reach + picture.width]
    shows = ((1 - opacity) ** ink[0])[..., None]
    colour = (ink[1:] / np.maximum(ink[0], 1e-9)).transpose(1, 2, 0)
    mixed = np.asarray(picture) * shows + colour * (1 - shows)
    return Image.fromarray(mixed.round().astype(np.uint8))


def quiver(
    positions: Array,
    field: Array,
    size: int = 480,
    limits: Limits | None = None,
    *,
    points: Array | None = None,
    reference: float | None = None,
) -> Image.Image:
    """A vector field as arrows: a score, a velocity.

    An arrow of magnitude m is drawn with the length and the colour of m / (m + reference), so that a field which grows
    without bound stays legible. Its middle stands on its position. Fields side by side should share one reference.

    Args:
        positions: Shape (M, D); the first two coordinates are drawn.
        field: The vectors there, shape (M, D).
        size: The longer side, in pixels.
        limits: As in `scatter`; by default, a square around the positions.
        points: Shape (N, D), drawn faintly behind the arrows: the data.
        reference: The magnitude at half of the longest arrow; by default, the median of the field.

    Raises:
        ShapeError: The arrays do not match, or have one coordinate only.
        BadOption: The limits, the size or the reference make no picture.
    """
    at, arrows = vectors("positions", positions), vectors("field", field)
    if at.shape != arrows.shape or at.shape[1] < 2:
        raise ShapeError(
            f"expected positions and field of one shape (M, D) with D > 1, got {at.shape} and {arrows.shape}"
        )
    if reference is not None and not reference > 0:
        raise BadOption(f"reference: must be more than 0, got {reference}")
    at, arrows = at[:, :2], arrows[:, :2]
    view = window(limits, size, at)
    picture = view.paper()
    if points is not None:
        cloud = vectors("points", points)[:, :2]
        picture = _stamp(picture, view, cloud, _colours(len(cloud), None, style.FAINT), None, 0.5)
    kept = view.holds(at) & np.isfinite(arrows).all(1)
    at, arrows = at[kept], arrows[kept]
    if not len(at):
        return view.frame(picture)
    magnitude = np.hypot(arrows[:, 0], arrows[:, 1])
    share = magnitude / (magnitude + (reference or float(np.median(magnitude)) or 1.0))
    longest = min(1.25 * math.sqrt(picture.width * picture.height / len(at)), size / 5)
    unit = arrows / np.maximum(magnitude, 1e-300)[:, None] * [1, -1]
    layer = _arrows(picture.size, view.pixels(at), unit, share, longest)
    return view.frame(Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB"))


def _arrows(size: tuple[int, int], at: Floats, unit: Floats, share: Floats, longest: float) -> Image.Image:
    layer = Image.new("RGBA", (size[0] * _SHARPER, size[1] * _SHARPER), (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    colours = style.ramp(share)
    for centre, along, m, colour in zip(at, unit, share, colours, strict=True):
        length = m * longest
        head = min(0.45 * length, 0.32 * longest)
        across = np.array([-along[1], along[0]])
        tip, tail = centre + along * length / 2, centre - along * length / 2
        neck = tip - along * head
        stroke = max(1.0, 0.06 * longest) * (0.55 + 0.45 * m)
        shaft = [
            tail + across * stroke / 2,
            neck + across * stroke / 2,
            neck - across * stroke / 2,
            tail - across * stroke / 2,
        ]
        barbs = [tip, neck + across * head * 0.42, neck - across * head * 0.42]
        for polygon in (shaft, barbs):
            draw.polygon(
                [tuple(float(v) for v in corner * _SHARPER) for corner in polygon], fill=(*map(int, colour), 255)
            )
    return layer.reduce(_SHARPER)
