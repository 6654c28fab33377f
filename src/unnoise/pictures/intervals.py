"""Numbers with their intervals, as dots with bars. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..errors import BadOption, ShapeError
from . import style
from .arrays import Floats
from .curves import _DASHED, _STRONG, _figure, _log_axis, _picture

Interval = tuple[float, float, float]
"""A value, and the lower and the upper end of its interval."""

_DECADE = 10.0  # numbers that span more have a logarithmic axis
_ROW = 0.34  # inches


def interval_plot(
    names: Sequence[str],
    panels: Mapping[str, Sequence[Interval | None]],
    *,
    better: Mapping[str, Literal["lower", "higher"]] | None = None,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Image.Image:
    """A row for each name and a panel for each number: a dot at the value, and a bar over its interval.

    Numbers that are all positive and span more than a factor of 10 have a logarithmic axis.

    Args:
        names: Of models, or of settings, from the top.
        panels: As many intervals as names, by what they are of; None where there is none.
        better: Which way is better, by panel, written under it.
        references: What real data has, by panel, drawn as a dashed line.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
        BadOption: There is no name or no panel.
        ShapeError: A panel has not as many intervals as there are names.
    """
    if not names or not panels:
        raise BadOption(f"panels: expected one at least, of one name at least, got {len(panels)} of {len(names)}")
    for label, intervals in panels.items():
        if len(intervals) != len(names):
            raise ShapeError(f"expected {len(names)} intervals of {label}, one for each name, got {len(intervals)}")
    room = 0.075 * max(map(len, names))
    width, height = room + max(2.9 * len(panels), 4.0), 1.0 + _ROW * len(names) + (0.3 if title else 0.0)
    figure, axes = _figure(title, len(panels), width, height)
    rows = np.arange(len(names))[::-1]
    for k, (ax, (label, intervals)) in enumerate(zip(axes, panels.items(), strict=True)):
        reference = (references or {}).get(label)
        if reference is not None:
            ax.axvline(reference, color=style.MUTED, linewidth=1.2, linestyle=_DASHED)
            at = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
            ax.annotate("real data", (reference, 1.0), ha="center", fontsize=8, color=style.MUTED, **at)
        for i, (row, interval) in enumerate(zip(rows, intervals, strict=True)):
            colour = style.PALETTE[i % len(style.PALETTE)]
            if interval is None or not np.isfinite(interval[0]):
                continue
            ends = [end for end in interval[1:] if np.isfinite(end)]
            if len(ends) == 2:
                ax.plot(ends, [row, row], color=colour, linewidth=_STRONG + 0.6, solid_capstyle="round", alpha=0.55)
            ax.plot([interval[0]], [row], color=colour, marker="o", markersize=6.5, markeredgecolor=style.PAPER)
        shown = np.array([v for each in intervals if each is not None for v in each] + [reference or np.nan])
        _scale(ax, shown[np.isfinite(shown)])
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_yticks(rows, list(names) if k == 0 else [""] * len(names))
        way = (better or {}).get(label)
        ax.set_xlabel((f"{label}   ({way} is better)" if label else f"{way} is better") if way else label)
        ax.grid(False, axis="y")
        ax.spines["left"].set_visible(False)
    return _picture(figure, axes)


def interval_rows(
    rows: Sequence[tuple[str, float, float, float]],
    xlabel: str = "",
    *,
    better: Literal["lower", "higher"] | None = None,
    reference: float | None = None,
    title: str | None = None,
) -> Image.Image:
    """One number of several models; see `interval_plot`.

    Args:
        rows: A name, the value, and the lower and the upper end of its interval, from the top.
        xlabel: What the number is.
        better: Which way is better.
        reference: What real data has.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
        BadOption: There is no row.
    """
    return interval_plot(
        [row[0] for row in rows],
        {xlabel: [(value, low, high) for _, value, low, high in rows]},
        better={} if better is None else {xlabel: better},
        references={} if reference is None else {xlabel: reference},
        title=title,
    )


def _scale(ax: Any, values: Floats) -> None:
    from matplotlib.ticker import MaxNLocator

    if len(values) and values.min() > 0 and values.max() > _DECADE * values.min():
        ax.set_xscale("log")
        _log_axis(ax.xaxis, values)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.margins(x=0.08)


def extrapolation(
    curve: Sequence[tuple[float, float]],
    limit: float,
    ends: tuple[float, float],
    *,
    name: str = "value",
    title: str | None = None,
) -> Image.Image:
    """A number against one over the samples that it was worked out of, and the line that leads to endlessly many.

    Args:
        curve: How many samples, and the value of so many; pairs, in any order.
        limit: The value of endlessly many.
        ends: The lower and the upper end of its interval.
        name: What the number is.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
        ShapeError: There is no pair.
    """
    points = np.array([tuple(pair)[:2] for pair in curve], dtype=np.float64)
    if points.ndim != 2 or not len(points) or points.shape[1] != 2:
        raise ShapeError(f"expected pairs of a number of samples and a value, at least one, got shape {points.shape}")
    figure, (ax,) = _figure(title, width=5.4, height=3.2)
    x, y = 1 / points[:, 0], points[:, 1]
    slope = float((x * (y - limit)).sum() / (x * x).sum())  # the line ends at the limit, wherever the points lie
    reach = np.array([0.0, 1.06 * x.max()])
    blue, orange = style.PALETTE[:2]
    ax.plot(reach, limit + slope * reach, color=blue, linewidth=_STRONG, alpha=0.6)
    ax.scatter(x, y, s=26, color=blue, linewidths=0, zorder=3, label="of so many samples")
    if np.isfinite(ends).all():
        ax.plot([0, 0], ends, color=orange, linewidth=_STRONG + 0.8, solid_capstyle="round", alpha=0.6, clip_on=False)
    ax.plot(
        [0], [limit], color=orange, marker="o", markersize=7, zorder=4, clip_on=False, linestyle="none",
        label=f"endlessly many: {limit:.4g}",
    )  # fmt: skip
    ticks = _spread(np.unique(points[:, 0]))
    ax.set_xticks([0.0, *(1 / ticks)], ["∞", *(f"{n:,.0f}" for n in ticks)])
    ax.set_xlim(-0.02 * reach[1], reach[1])
    ax.set(xlabel="samples  (the axis is one over their number)", ylabel=name)
    return _picture(figure, [ax])


def _spread(nums: Floats) -> Floats:
    """Numbers of samples whose ticks do not run into each other, the smallest among them."""
    kept: list[float] = []
    apart = 0.12 / nums.min()
    for n in nums:
        if (not kept or 1 / kept[-1] - 1 / n >= apart) and 1 / n >= apart:
            kept.append(float(n))
    return np.array(kept)
