"""Controls of a page, made from the options of a part: what `option(...)` declares is the slider, its ends and its help."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..options import option_fields
from ..recipes.catalogue import summary_of
from ..registry import Registry

SOFT_END = 10.0
"""Where a slider ends whose option has no highest value, unless four times the default lies beyond."""


def parts(registry: Registry[Any]) -> list[dict[str, Any]]:
    """Every member of a registry: its name, what it is in one line, and its controls."""
    return [
        {"name": name, "summary": summary_of(registry[name]), "controls": controls(registry.options_class(name))}
        for name in registry
    ]


def controls(cls: type) -> list[dict[str, Any]]:
    """The controls of an options class, one for each option that a page can show.

    Args:
        cls: A frozen dataclass of options.

    Returns:
        For each option its name, help and default, and a kind: `number` and `whole` with `low` and `high` (or None) and the
        ends `from` and `to` of a slider, `choice` with `choices`, `switch`, `text`, or `numbers` for several.
    """
    hints = get_type_hints(cls)
    made = (_control(name, field, hints[name]) for name, field in option_fields(cls).items())
    return [control for control in made if control is not None]


def _control(name: str, field: dataclasses.Field[Any], kind: Any) -> dict[str, Any] | None:
    shape = _shape(kind)
    if shape is None or field.metadata.get("one_of") is not None:
        return None
    default = None if field.default is dataclasses.MISSING else field.default
    known = {
        "name": name,
        "help": field.metadata.get("help", ""),
        "default": _plain(default),
        "required": field.default is dataclasses.MISSING,
        **shape,
    }
    if shape["kind"] in ("number", "whole"):
        known |= _range(field.metadata.get("low"), field.metadata.get("high"), default)
    return known


def _shape(kind: Any) -> dict[str, Any] | None:
    """What kind of control a type wants; None where there is none for it."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [each for each in get_args(kind) if each is not type(None)]
        found = _shape(inner[0]) if inner else None
        return found and {**found, "optional": type(None) in get_args(kind)}
    if get_origin(kind) is Literal:
        return {"kind": "choice", "choices": list(get_args(kind))}
    if get_origin(kind) is tuple:
        return {"kind": "numbers"} if all(each in (int, float, ...) for each in get_args(kind)) else None
    names = {bool: "switch", int: "whole", float: "number", str: "text"}
    return {"kind": names[kind]} if isinstance(kind, type) and kind in names else None


def _range(low: float | None, high: float | None, default: Any) -> dict[str, Any]:
    """What may be typed, and the ends of the slider."""
    start = 0.0 if low is None else low
    around = default if isinstance(default, (int, float)) and math.isfinite(default) else 0.0
    end = high if high is not None and math.isfinite(high) else max(SOFT_END, 4 * around)
    return {"low": low, "high": high, "from": start, "to": end}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
