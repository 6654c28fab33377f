"""The noise schedule of a run, settled by the size of its data."""

from __future__ import annotations

import math

from ..errors import BadOption
from ..process.base import Schedule
from ..process.flow import FlowSchedule
from ..registry import Choice


def stand_in(process: Schedule) -> Schedule:
    """The schedule, or where its shift is left to the data, the one without: for what can be said before the data is known."""
    return FlowSchedule() if isinstance(process, FlowSchedule) and isinstance(process.shift, str) else process


def settled_process(process: Schedule, shape: tuple[int, ...], network: Choice) -> Schedule:
    """A schedule with numbers where it was left to the data.

    Args:
        process: Of the recipe.
        shape: Of one sample, as the network sees it.
        network: Which, with its patch where it has one.

    Raises:
        BadOption: The data has no size, or the network no patches.
    """
    if not isinstance(process, FlowSchedule) or not isinstance(process.shift, str):
        return process
    size = shape[1:]
    if not size:
        raise BadOption(
            f"process.shift: {process.shift} is about pictures, sequences and videos, and this data is points: give a number"
        )
    patch = getattr(network.config, "patch", None)
    cut = math.prod(patch) if isinstance(patch, tuple) else None if patch is None else patch ** len(size)
    try:
        found = process.settled(math.prod(size), None if cut is None else max(1, math.prod(size) // cut))
    except BadOption as error:
        raise BadOption(f"process.{error}") from None
    return FlowSchedule(round(found.factor, 6))
