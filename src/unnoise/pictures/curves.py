"""Curves with axes: losses, schedules, comparisons. Needs matplotlib; draws on its own canvas, never on pyplot's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..errors import MissingExtra
from . import style
from .arrays import Array, Floats, series

_DPI = 144  # twice the size that it is mostly shown at
_TEXT = 9  # points
_STRONG = 1.8
_DASHED = (0, (5, 3))
_LOG_SNR = 20.0  # shown at most: beyond it, noise or signal is less than one part in 20,000


def _figure(title: str | None, panels: int = 1, width: float = 6.4, height: float = 3.5) -> tuple[Any, list[Any]]:
    """A figure of `width` by `height` inches and its axes, from left to right."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise MissingExtra("drawing curves", "matplotlib", "plot") from None
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.06)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=style.PAPER, layout=layout)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=_TEXT + 2.5, color=style.INK, x=0.02, ha="left")
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    for ax in axes:
        ax.set_facecolor(style.PAPER)
        ax.grid(True, color=style.RULE, linewidth=0.8)
        ax.set_axisbelow(True)
        for side, spine in ax.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(style.FRAME)
    return figure, axes


def _picture(figure: Any, axes: list[Any], columns: int = 1) -> Image.Image:
    """The figure as pixels, with its ticks and its legends in the one look."""
    for ax in axes:
        ax.tick_params(which="both", colors=style.MUTED, labelsize=_TEXT - 0.5, length=0, pad=5)
        ax.xaxis.label.set(color=style.MUTED, fontsize=_TEXT)
        ax.yaxis.label.set(color=style.MUTED, fontsize=_TEXT)
        handles, labels = ax.get_legend_handles_labels()
        if handles:
            ax.legend(
                handles, labels, loc="best", fontsize=_TEXT - 0.5, labelcolor=style.INK, ncols=columns, handlelength=1.8,
                facecolor=style.PAPER, edgecolor="none", framealpha=0.85, borderpad=0.3,
            )  # fmt: skip
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def _log_axis(axis: Any, *values: Floats) -> None:
    """A logarithmic axis whose numbers are written out, with some between the powers of ten on short ranges."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = np.concatenate([v[(v > 0) & np.isfinite(v)] for v in values] or [np.ones(1)])
    decades = np.log10(positive.max() / positive.min()) if len(positive) else 0.0
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if 1e-4 <= value < 1e5 else f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def loss_curve(
    steps: Array,
    losses: Array,
    smoothed: Array | None = None,
    *,
    floor: float | None = None,
    validation: tuple[Array, Array] | None = None,
    validation_floor: float | None = None,
    title: str | None = None,
    log_y: bool | None = None,
) -> Image.Image:
    """A training loss over its steps, with the lowest value that any network could reach.

    Args:
        steps: Shape (N,).
        losses: Shape (N,), drawn faintly where there is a smoothed curve.
        smoothed: Shape (N,), drawn strongly.
        floor: The Bayes floor of the training loss.
        validation: Steps and validation losses, shape (M,) each.
        validation_floor: The Bayes floor of the validation loss, where it is another one.
        title: A line above.
        log_y: Whether the loss has a logarithmic axis; by default, where it spans more than a factor of 8.

    Raises:
        MissingExtra: Matplotlib is not installed.
        ShapeError: Steps and losses are not as many.
    """
    figure, (ax,) = _figure(title)
    x = series("steps", steps)
    raw = series("losses", losses, len(x))
    shown = [raw]
    blue, orange = style.PALETTE[:2]
    if smoothed is None:
        ax.plot(x, raw, color=blue, linewidth=_STRONG, label="loss", **_dots(x))
    else:
        shown.append(series("smoothed", smoothed, len(x)))
        ax.plot(x, raw, color=blue, linewidth=0.8, alpha=0.28)
        ax.plot(x, shown[-1], color=blue, linewidth=_STRONG, label="loss, smoothed", **_dots(x))
    if validation is not None:
        at = series("validation steps", validation[0])
        shown.append(series("validation losses", validation[1], len(at)))
        ax.plot(at, shown[-1], color=orange, linewidth=_STRONG, label="validation loss", **_dots(at))
    values = np.concatenate([*shown, _floor(ax, floor, blue, ""), _floor(ax, validation_floor, orange, ", validation")])
    if _spans_decades(values) if log_y is None else log_y and bool((values > 0).any()):
        ax.set_yscale("log")
        _log_axis(ax.yaxis, values)
    ax.set(xlabel="step", ylabel="loss")
    ax.margins(x=0.01)
    return _picture(figure, [ax])


def _floor(ax: Any, value: float | None, colour: str, of_what: str) -> Floats:
    if value is None:
        return np.zeros(0)
    ax.axhline(value, color=colour, linewidth=1.2, linestyle=_DASHED, label=f"Bayes floor{of_what} ({value:.4g})")
    return np.array([value], dtype=np.float64)


def _spans_decades(values: Floats) -> bool:
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0) and bool(values.max() > 8 * values.min())


def _dots(x: Floats) -> dict[str, Any]:
    """Single values are marked where they are few enough to be told apart."""
    return {"marker": "o", "markersize": 3.6} if len(x) <= 30 else {}


def lines(
    curves: Mapping[str, tuple[Array, Array]],
    xlabel: str = "",
    ylabel: str = "",
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Image.Image:
    """Named curves over one pair of axes.

    Args:
        curves: x and y, shape (N,) each, by the name in the legend; up to ten have their own colour.
        xlabel: Under the horizontal axis.
        ylabel: Beside the vertical axis.
        title: A line above.
        log_x: Whether the horizontal axis is logarithmic; what is not positive is then left out.
        log_y: The same for the vertical axis.

    Raises:
        MissingExtra: Matplotlib is not installed.
        ShapeError: The x and the y of a curve are not as many.
    """
    figure, (ax,) = _figure(title)
    drawn: list[tuple[Floats, Floats]] = []
    for i, (name, (x, y)) in enumerate(curves.items()):
        x = series(f"x of {name}", x)
        drawn.append((x, series(f"y of {name}", y, len(x))))
        colour, dash = style.PALETTE[i % len(style.PALETTE)], "-" if i < len(style.PALETTE) else "--"
        ax.plot(*drawn[-1], color=colour, linestyle=dash, linewidth=_STRONG, label=name or None, **_dots(x))
    for on, side, i in ((log_x, "x", 0), (log_y, "y", 1)):
        if on and any((pair[i] > 0).any() for pair in drawn):
            getattr(ax, f"set_{side}scale")("log")
            _log_axis(getattr(ax, f"{side}axis"), *(pair[i] for pair in drawn))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return _picture(figure, [ax], columns=1 if len(curves) < 6 else 2)


def loss_by_time(
    t: Array,
    loss: Array,
    floor: Array | None = None,
    title: str | None = None,
    beside: Mapping[str, Array] | None = None,
) -> Image.Image:
    """The loss at each stretch of time as bars, each with its Bayes floor: what lies above it can still be learned.

    Args:
        t: The middle of each stretch, rising in [0, 1], shape (K,).
        loss: Shape (K,).
        floor: Shape (K,).
        title: A line above.
        beside: Losses of others, shape (K,) each, by the name in the legend.

    Raises:
        MissingExtra: Matplotlib is not installed.
        ShapeError: The arrays are not as many.
    """
    figure, (ax,) = _figure(title)
    middle = series("t", t)
    heights = series("loss", loss, len(middle))
    edges = np.concatenate([[0.0], (middle[1:] + middle[:-1]) / 2, [1.0]]) if len(middle) else np.zeros(1)
    widths = np.diff(edges)
    left, right = edges[:-1] + 0.06 * widths, edges[1:] - 0.06 * widths
    ax.bar(left, heights, right - left, align="edge", color=style.PALETTE[0], alpha=0.75, label="loss")
    if floor is not None:
        lowest = series("floor", floor, len(middle))
        ax.bar(left, np.minimum(lowest, heights), right - left, align="edge", color=style.PAPER, alpha=0.55)
        ax.hlines(lowest, left, right, color=style.INK, linewidth=_STRONG, label="Bayes floor")
    for i, (name, other) in enumerate((beside or {}).items()):
        ax.hlines(
            series(f"loss of {name}", other, len(middle)), left, right, color=style.PALETTE[1 + i], linewidth=_STRONG, label=name
        )  # fmt: skip
    ax.set(xlabel="time t   (0 is data, 1 is noise)", ylabel="loss", xlim=(0, 1))
    ax.grid(False, axis="x")
    return _picture(figure, [ax])


def schedule_curves(
    schedules: Mapping[str, tuple[Array, Array, Array, Array]], title: str | None = None
) -> Image.Image:
    """Signal and noise scale on the left, the logarithm of the signal-to-noise ratio, within ±20, on the right.

    Args:
        schedules: t, alpha, sigma and log_snr, shape (N,) each, by name; where log_snr is infinite it is not drawn.
        title: A line above.

    Raises:
        MissingExtra: Matplotlib is not installed.
        ShapeError: The four are not as many.
    """
    figure, axes = _figure(title, panels=2, width=8.4, height=3.3)
    for i, (name, (t, *rest)) in enumerate(schedules.items()):
        x = series(f"t of {name}", t)
        alpha, sigma, log_snr = (
            series(f"{what} of {name}", y, len(x)) for what, y in zip(("alpha", "sigma", "log_snr"), rest, strict=True)
        )
        colour = style.PALETTE[i % len(style.PALETTE)]
        axes[0].plot(x, alpha, color=colour, linewidth=_STRONG)
        axes[0].plot(x, sigma, color=colour, linewidth=_STRONG, linestyle=_DASHED)
        axes[1].plot(x, np.where(np.isfinite(log_snr), log_snr, np.nan), color=colour, linewidth=_STRONG, label=name)
    top = max((float(np.max(line.get_ydata(), initial=0.0)) for line in axes[0].lines), default=0.0) or 1.0
    axes[0].set_ylim(-0.05 * top, 1.25 * top)  # room for the legend, which would hide the curves elsewhere
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(max(low, -_LOG_SNR), min(high, _LOG_SNR))
    for dash, label in (("-", "signal α(t)"), (_DASHED, "noise σ(t)")):
        axes[0].plot([], [], color=style.MUTED, linestyle=dash, linewidth=_STRONG, label=label)
    axes[0].set(xlabel="time t", ylabel="scale")
    axes[1].set(xlabel="time t", ylabel="log SNR = ln(α²/σ²)")
    return _picture(figure, axes, columns=2)
