"""What a person asks of a model, as plain values that a recipe can hold."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from .conditioning.asking import boxes_text, map_text
from .errors import BadOption
from .options import Checked, build, option, plain
from .samplers.grids import GridSpec


@dataclass(frozen=True)
class Blend(Checked):
    """Noise that is mixed with another: a little of it varies a sample, more and more of it leads to another one."""

    seed: int = option(help="of the noise that is mixed in")
    share: float = option(0.2, help="how much of it: 0 none, 1 nothing else", low=0.0, high=1.0)
    shift: int = option(0, help="sample k is mixed with sample k + shift of that seed")


def plain_blend(blend: Any, first: int) -> dict[str, Any]:
    """What noise is mixed with, checked and complete, as plain values by name; nothing where it is not.

    Raises:
        BadOption: An option is wrong, or there is no such sample.
    """
    if blend is None:
        return {}
    if not isinstance(blend, Blend):
        if not isinstance(blend, Mapping):
            raise BadOption(f"blend: expected {{seed: ..., share: ...}}, got {blend!r}")
        blend = build(Blend, blend, "blend")
    if first + blend.shift < 0:
        raise BadOption(f"blend.shift: sample {first} would be mixed with sample {first + blend.shift}")
    return {"blend": plain(blend)}


def whole_number(name: str, value: Any, low: int | None = None) -> int:
    """A whole number of any type, numpy's among them, as Python's own, which recipes can hold."""
    try:
        number = operator.index(value)
    except TypeError:
        raise BadOption(f"{name}: expected a whole number, got {value!r}") from None
    if low is not None and number < low:
        raise BadOption(f"{name}: must be at least {low}, got {number}")
    return number


def plain_grid(grid: GridSpec) -> str | dict[str, Any] | list[float]:
    """A grid as plain values: arrays, tensors and a text such as "1,0.5,0" become lists."""
    grid = grid.tolist() if hasattr(grid, "tolist") else grid
    if isinstance(grid, str):
        return _times(grid) or grid
    if isinstance(grid, Mapping):
        return dict(grid)
    if isinstance(grid, Sequence) and all(isinstance(t, Real) for t in grid):
        return [float(t) for t in grid]
    raise BadOption(f"grid: expected a name, {{name: ..., option: value}} or times, got {grid!r}")


def _times(text: str) -> list[float] | None:
    """The numbers of a text with commas between, or None where it is none."""
    try:
        return [float(part) for part in text.split(",")] if "," in text else None
    except ValueError:
        return None


def plain_label(label: Any) -> str | int | list[str | int | None] | None:
    """What is asked for, as plain values: arrays and tensors become lists."""
    label = label.tolist() if hasattr(label, "tolist") else label
    if label is None or isinstance(label, (str, int)):
        return label
    if isinstance(label, Iterable):
        plain_values = [each.tolist() if hasattr(each, "tolist") else each for each in label]
        if all(each is None or isinstance(each, (str, int)) for each in plain_values):
            return plain_values
    raise BadOption(f"label: expected a name, a number, or one of these for each sample, got {label!r}")


def plain_prompts(prompt: Any, negative_prompt: Any) -> dict[str, str | list[str | None]]:
    """The prompts that were given, as plain values by name; nothing where there are none."""
    found: dict[str, str | list[str | None]] = {}
    for name, given in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if given is None:
            continue
        if isinstance(given, str):
            found[name] = given
            continue
        listed = list(given) if isinstance(given, Iterable) else [given]
        if not listed or not all(each is None or isinstance(each, str) for each in listed):
            raise BadOption(f"{name}: expected words, or some for each sample, got {given!r}")
        found[name] = listed
    return found


def plain_regions(boxes: Any, map: Any) -> dict[str, str | list[str | None]]:
    """Boxes and label maps that were given, as plain values by name; nothing where there are none.

    Args:
        boxes: "cat 0.1 0.2 0.5 0.6; dog ...", or (name, left, top, right, bottom) of each box, for all samples; or a list with one
            such text, or None, for each.
        map: A label map for all: a file, a picture, an array of class numbers, or what this made of one; or a list for each.
    """
    found: dict[str, str | list[str | None]] = {}
    if boxes is not None:
        each = (
            isinstance(boxes, Sequence)
            and not isinstance(boxes, str)
            and all(b is None or isinstance(b, str) for b in boxes)
        )
        found["boxes"] = list(boxes) if each and boxes else boxes_text(boxes)
    if map is not None:
        found["map"] = (
            [None if m is None else map_text(m) for m in map] if isinstance(map, (list, tuple)) else map_text(map)
        )
    return found


def find_tuned(
    known: Mapping[int, Mapping[str, Any]],
    model: str,
    path: str | None,
    sampler: str | Mapping[str, Any],
    calls: int | None,
    grid: GridSpec | None,
) -> tuple[dict[str, Any], int, list[float]]:
    """The sampler, steps and times that `unnoise tune` found for a budget of network calls.

    Args:
        known: What it found, by budget.
        model: The hash of the model that is asked.
        path: Where that stands, for messages.
        sampler: As it was asked for: "tuned", or {name: tuned}.
        calls: The budget; may be left out where there is one alone.
        grid: Must not be given.

    Raises:
        BadOption: Nothing was found for this budget, or for another model, or more is asked for than the budget.
    """
    listed = ", ".join(str(each) for each in sorted(known)) or "nothing"
    make = f"`unnoise tune {path or 'MODEL'} --steps {calls or 8}` does it"
    if grid is not None or (isinstance(sampler, Mapping) and len(sampler) > 1):
        raise BadOption("sampler tuned: it has its own times and options, so give neither")
    if calls is None and len(known) == 1:
        calls = next(iter(known))
    entry = None if calls is None else known.get(whole_number("steps", calls, 1))
    if entry is None:
        asked = "say for how many steps" if calls is None else f"it is not tuned for {calls} steps"
        raise BadOption(f"sampler tuned: {asked}; this model is tuned for {listed}; {make}")
    if entry["model"] != model:
        raise BadOption(f"sampler tuned: the model was trained on since it was tuned; {make}")
    return dict(entry["sampler"]), len(entry["times"]) - 1, [float(t) for t in entry["times"]]
