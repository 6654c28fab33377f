"""Error against network calls: every candidate a dot, and the line that none of them lies below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from . import style
from .curves import _figure, _log_axis, _picture

Named = tuple[str, float, float]
"""A name, network calls, and the error."""


def frontier_plot(
    candidates: Sequence[Named],
    front: Sequence[Named],
    tuned: Sequence[Named] = (),
    *,
    error: str = "error",
    title: str | None = None,
) -> Image.Image:
    """Candidates by what they cost and how far they are off, with the Pareto front named.

    Args:
        candidates: All of them.
        front: Those that are best for their calls, fewest calls first.
        tuned: Drawn as stars.
        error: What the vertical axis shows.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    figure, (ax,) = _figure(title, width=7.2, height=4.4)
    everything = np.array([each[1:] for each in (*candidates, *front, *tuned)], dtype=np.float64)
    ax.scatter(
        [c[1] for c in candidates],
        [c[2] for c in candidates],
        s=14,
        color=style.FAINT,
        linewidths=0,
        label="candidates",
    )
    ax.plot(
        [c[1] for c in front], [c[2] for c in front], color=style.PALETTE[0], marker="o", markersize=5, linewidth=1.8,
        label="best of the fixed grids",
    )  # fmt: skip
    for name, calls, value in front:
        ax.annotate(name, (calls, value), xytext=(5, 5), textcoords="offset points", fontsize=7.5, color=style.INK)
    if tuned:
        ax.scatter(
            [c[1] for c in tuned],
            [c[2] for c in tuned],
            s=130,
            marker="*",
            color=style.PALETTE[1],
            zorder=5,
            label="tuned",
        )
        for name, calls, value in tuned:
            ax.annotate(name, (calls, value), xytext=(6, -11), textcoords="offset points", fontsize=8, color=style.INK)
    ax.set_yscale("log")
    ax.set_xscale("log")
    _log_axis(ax.xaxis, everything[:, 0])
    _log_axis(ax.yaxis, everything[:, 1])
    ax.set_xlabel("network calls")
    ax.set_ylabel(error)
    return _picture(figure, [ax])
