"""What stands where in a picture of coloured shapes: a box around every object, and the pixels that it covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..regions import NO_BOX, NOTHING, Regions
from .layout import SIDE, Box, Placed
from .outlines import OUTLINES
from .scene import MOST_ALIKE, SHAPES

BACKGROUND = "background"


def regions_of(pictures: Sequence[Sequence[Placed]], side: int = SIDE) -> Regions:
    """Boxes by shape, and maps of the background and of every shape.

    Args:
        pictures: The objects of each.
        side: Of the maps in pixels.
    """
    boxes = torch.full((len(pictures), MOST_ALIKE, 5), float(NO_BOX))
    maps = np.zeros((len(pictures), side, side), np.uint8)
    at = (np.arange(side) + 0.5) * SIDE / side
    for k, objects in enumerate(pictures):
        for i, each in enumerate(objects):
            outline, number = OUTLINES[each.thing.shape], SHAPES.index(each.thing.shape)
            box = Box.of(outline, each.radius)
            ends = (each.x - box.across, each.y - box.up, each.x + box.across, each.y + box.down)
            boxes[k, i] = torch.tensor((number, *(end / SIDE for end in ends)))
            inside = outline.distance((at - each.x)[None] / each.radius, (at - each.y)[:, None] / each.radius) < 0
            maps[k][inside] = number + 1
    assert len(SHAPES) + 1 < NOTHING
    return Regions(boxes, torch.from_numpy(maps), SHAPES, (BACKGROUND, *SHAPES))
