"""Numbers with their intervals along an axis, as lines in bands. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ..errors import ShapeError
from . import style
from .arrays import Array, series
from .curves import _DASHED, _STRONG, _figure, _log_axis, _picture
from .intervals import Interval


def bands(
    x: Array,
    panels: Mapping[str, Sequence[Interval]],
    *,
    xlabel: str = "",
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Image.Image:
    """A panel for each number: a line through its values, and a band from the lower to the upper end of its intervals.

    Args:
        x: Where the values stand, shape (N,); the axis is logarithmic where they are positive and span a factor of 10.
        panels: (value, low, high) at every place, by what they are of.
        xlabel: Under the axis.
        references: A dashed line across a panel, such as what real data has.
        title: A line above.

    Raises:
        ShapeError: There is no panel, or one has not as many values as x.
        MissingExtra: Matplotlib is not installed.
    """
    at = series("x", x)
    if not panels:
        raise ShapeError("expected at least one panel, got none")
    figure, axes = _figure(title, len(panels), width=4.6 * len(panels), height=3.3)
    for i, (ax, (name, intervals)) in enumerate(zip(axes, panels.items(), strict=True)):
        if len(intervals) != len(at):
            raise ShapeError(f"expected {len(at)} values of {name}, one for each place, got {len(intervals)}")
        values, low, high = np.array(intervals, dtype=np.float64).T
        colour = style.PALETTE[i % len(style.PALETTE)]
        ax.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(at, values, color=colour, linewidth=_STRONG, marker="o", markersize=3.5)
        reference = (references or {}).get(name)
        if reference is not None:
            ax.axhline(reference, color=style.MUTED, linewidth=1.2, linestyle=_DASHED)
        if at.min() > 0 and at.max() >= 10 * at.min():
            ax.set_xscale("log")
            _log_axis(ax.xaxis, at)
        ax.set(xlabel=xlabel, ylabel=name)
    return _picture(figure, axes)
