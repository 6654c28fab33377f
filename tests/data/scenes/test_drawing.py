"""Outlines have the area they claim, edges are antialiased, and colours can be told apart by everybody."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unnoise.data.scenes.drawing import draw
from unnoise.data.scenes.layout import SIDE, Placed
from unnoise.data.scenes.outlines import OUTLINES
from unnoise.data.scenes.scene import COLOURS, Thing

FINE = 16


def polygon(shape):
    """The corners of a shape around its centre of mass, before its area is made that of a circle."""
    turn = np.arange(10) * np.pi / 5
    if shape == "star":
        far = np.where(np.arange(10) % 2, 0.5, 1.0)
        return np.stack([far * np.sin(turn), -far * np.cos(turn)], 1)
    if shape == "triangle":
        third = np.arange(3) * 2 * np.pi / 3
        return np.stack([np.sin(third), -np.cos(third)], 1)
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    w = 0.36
    quarter = np.array([(w, -1), (w, -w), (1, -w), (1, w)])
    turned = [quarter @ np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), k) for k in range(4)]
    return np.concatenate(turned)


def by_pillow(shape, x, y, radius):
    """The same object drawn by Pillow, 16 times as large and then averaged: shape (SIDE, SIDE), in [0, 1]."""
    sheet = Image.new("L", (SIDE * FINE, SIDE * FINE))
    pen = ImageDraw.Draw(sheet)

    def disc(r, fill):
        pen.ellipse([(c - r) * FINE - 0.5 for c in (x, y)] + [(c + r) * FINE - 0.5 for c in (x, y)], fill=fill)

    if shape == "circle":
        disc(radius, 255)
    elif shape == "ring":
        outer = radius / np.sqrt(1 - 0.52**2)
        disc(outer, 255)
        disc(0.52 * outer, 0)
    else:
        corners = polygon(shape)
        a, b = corners, np.roll(corners, -1, 0)
        area = abs((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / 2
        corners = corners * radius * np.sqrt(np.pi / area) + [x, y]
        pen.polygon([(float(cx * FINE - 0.5), float(cy * FINE - 0.5)) for cx, cy in corners], fill=255)
    fine = np.asarray(sheet, dtype=float) / 255
    return fine.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))


@pytest.mark.parametrize("shape", OUTLINES)
@pytest.mark.parametrize("radius", [5.4, 10.4])
def test_objects_are_those_that_pillow_draws(shape, radius):
    x, y = 30.3, 33.9
    thing = Placed(Thing("black", shape, "large"), x, y, radius, (0.0, 0.0, 0.0))
    found = 1 - draw([[thing]], [255.0])[0, 0] / 255
    wanted = by_pillow(shape, x, y, radius)
    assert found.sum() == pytest.approx(np.pi * radius**2, rel=0.02)
    assert np.abs(found - wanted).max() < 0.35  # at sharp corners
    assert np.abs(found - wanted).sum() < 0.02 * wanted.sum() + 3
    at = np.arange(SIDE) + 0.5
    assert (found.sum(0) @ at / found.sum(), found.sum(1) @ at / found.sum()) == pytest.approx((x, y), abs=0.15)


@pytest.mark.parametrize("shape", OUTLINES)
def test_boxes_hold_their_outline_tightly(shape):
    outline = OUTLINES[shape]
    at = np.linspace(-2, 2, 801)
    inside = outline.distance(at[None, :], at[:, None]) < 0
    across, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    assert at[across[-1]] == pytest.approx(outline.across, abs=0.01)
    assert at[across[0]] == pytest.approx(-outline.across, abs=0.01)
    assert at[rows[0]] == pytest.approx(-outline.up, abs=0.02)
    assert at[rows[-1]] == pytest.approx(outline.down, abs=0.01)
    assert inside.mean() * 16 == pytest.approx(np.pi, rel=0.01)


def test_pictures_of_another_side_are_the_same_scene_enlarged():
    thing = Placed(Thing("blue", "star", "large"), 20.0, 40.0, 9.5, (25.0, 60.0, 190.0))
    small, large = (draw([[thing]], [240.0], side)[0].astype(float) for side in (64, 128))
    assert np.abs(large.reshape(3, 64, 2, 64, 2).mean((2, 4)) - small).mean() < 0.5


# Colour vision, after Machado, Oliveira and Fernandes (2009), severity 1.0, https://doi.org/10.1109/TVCG.2009.113

VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(rgb, vision):
    """CIELAB of a colour in [0, 255] as somebody sees it."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = TO_XYZ @ np.clip(np.asarray(vision) @ linear, 0, 1) / TO_XYZ.sum(1)
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", VISION)
def test_colours_are_told_apart_by_people_with_any_colour_vision(kind):
    seen = {name: lab(rgb, VISION[kind]) for name, rgb in {**COLOURS, "background": (238, 238, 238)}.items()}
    nearest = min(itertools.combinations(seen, 2), key=lambda pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
    # 2.3 is a difference that can just be noticed; the nearest two are some nine times as far apart.
    assert np.linalg.norm(seen[nearest[0]] - seen[nearest[1]]) > 20, nearest
