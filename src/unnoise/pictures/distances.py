"""How near samples come to the training data, and how near data comes that was not learned. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from ..errors import BadOption
from . import style
from .arrays import Array, Floats, series
from .curves import _figure, _log_axis, _picture

_REACH = 1e-4  # of the middle of the other data: nearer than that is drawn as this near
_SHORT = 20.0  # ranges that span less have more numbers between the powers of ten
_MOST = 48  # bars of a panel


def nearest_distances(panels: Mapping[str, tuple[Array, Array, str]], title: str | None = None) -> Image.Image:
    """The distribution of distances to the nearest training sample: samples as bars, other data as a line over them.

    The axis is logarithmic, and what is 0 or nearly stands at its left end, marked so. Heights are shares of each side.

    Args:
        panels: Distances of the samples, shape (N,), of the other data, shape (H,), and what that is, by the name of the space.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
        BadOption: There is no panel.
        ShapeError: Distances have another shape, or there are none.
    """
    if not panels:
        raise BadOption("panels: expected distances in at least one space, got none")
    figure, axes = _figure(title, panels=len(panels), width=5.4 if len(panels) == 1 else 4.4 * len(panels), height=3.2)
    for ax, (name, (made, other, against)) in zip(axes, panels.items(), strict=True):
        bars, line = series(f"distances in {name}", made), series(f"other distances in {name}", other)
        edges, at_end = _edges(bars, line)
        middle = np.sqrt(edges[1:] * edges[:-1])
        shares = [np.histogram(np.clip(d, edges[0], edges[-1]), edges)[0] / max(len(d), 1) for d in (bars, line)]
        ax.bar(edges[:-1], shares[0], np.diff(edges), align="edge", color=style.PALETTE[0], alpha=0.55, label="samples")
        ax.stairs(shares[1], edges, color=style.INK, linewidth=1.5, label=against)
        ax.set_xscale("log")
        _log_axis(ax.xaxis, edges)
        if edges[-1] < _SHORT * edges[0]:
            ax.xaxis.get_major_locator().set_params(subs=(1, 2, 3, 5))
        if at_end:
            highest = max(share[0] for share in shares)
            ax.annotate(
                "0, or nearly", (middle[0], highest), xytext=(0, 4), textcoords="offset points", fontsize=8,
                color=style.MUTED, ha="left",
            )  # fmt: skip
        ax.set_ylim(0, 1.3 * max(max(s.max() for s in shares), 1e-9))  # room for the legend
        ax.set(xlabel=f"distance in {name}", ylabel="share" if ax is axes[0] else "")
        ax.grid(False, axis="x")
    return _picture(figure, axes)


def _edges(made: Floats, other: Floats) -> tuple[Floats, bool]:
    """The edges of the bars, and whether something lies below them."""
    both = np.concatenate([made, other])
    positive = both[(both > 0) & np.isfinite(both)]
    if not len(positive):
        return np.geomspace(0.1, 10, 9), bool(len(both))
    reference = other[(other > 0) & np.isfinite(other)]
    least = _REACH * float(np.median(reference if len(reference) else positive))
    low, high = max(float(positive.min()), least), float(positive.max())
    at_end = bool((both < low).any())
    low = low / 2 if at_end else low
    spread = max(high / low, 1.02)
    num = int(np.clip(2 * np.sqrt(max(len(made), 1)), 12, _MOST))
    return np.geomspace(low / spread**0.02, low * spread**1.02, num + 1), at_end
