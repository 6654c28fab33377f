"""Options, declared once: a frozen dataclass field is the setting, its help, its range and its check."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .errors import BadOption, nearest

T = TypeVar("T")

_VALUES = {bool: "true or false", int: "a whole number", float: "a number"}


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    one_of: Any = None,
) -> Any:
    """A dataclass field that a person may set.

    Args:
        default: The value when nothing is said; required when left out.
        help: One line, with the unit where there is one.
        low: Smallest value allowed.
        high: Largest value allowed.
        one_of: The registry whose members are the values, for a field that holds a part.

    Returns:
        The field, with all of this in its metadata.
    """
    metadata = {"help": help, "low": low, "high": high, "one_of": one_of}
    return dataclasses.field(default=default, metadata=metadata)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def option_fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of an options class that a person may set, by name."""
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """An instance of an options class from plain values, each checked.

    Args:
        cls: A dataclass.
        values: Plain values by option name, as YAML or a command line gives them.
        where: The dotted path that leads here, for messages.

    Returns:
        The instance.

    Raises:
        BadOption: An option does not exist, is missing, or has a bad value.
    """
    fields = option_fields(cls)
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in fields:
            raise BadOption(f"{prefix}{name}: there is no such option{nearest(name, fields)}")
    checked = {name: _check(cls, fields[name], value, prefix + name) for name, value in values.items()}
    missing = [n for n, f in fields.items() if n not in checked and f.default is dataclasses.MISSING]
    if missing:
        raise BadOption(f"{prefix}{missing[0]}: must be given")
    try:
        return cls(**checked)
    except BadOption as error:
        raise BadOption(f"{prefix}{error}") from None


class Checked:
    """A base of frozen dataclasses whose options are checked however they are made, by a recipe or by hand.

    A subclass with a `__post_init__` of its own calls this one first.

    Raises:
        BadOption: An option has a value of the wrong type, or out of its range.
    """

    def __post_init__(self) -> None:
        for name, field in option_fields(type(self)).items():
            object.__setattr__(self, name, _check(type(self), field, getattr(self, name), name))


def _check(cls: type, field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    registry = field.metadata.get("one_of")
    if registry is not None:
        return registry.build(value, where)
    kind = _hints(cls)[field.name]
    section = _section(kind)
    if section is not None:
        if isinstance(value, section) or (value is None and section is not kind):
            return value
        if not isinstance(value, Mapping):
            raise BadOption(f"{where}: expected options by name, got {value!r}")
        return build(section, value, where)
    value = coerce(kind, value, where)
    low, high = field.metadata.get("low"), field.metadata.get("high")
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, (int, float)) and not isinstance(each, bool):
            if low is not None and not each >= low:  # so that NaN is refused too
                raise BadOption(f"{where}: must be at least {low}, got {each}")
            if high is not None and not each <= high:
                raise BadOption(f"{where}: must be at most {high}, got {each}")
    return value


def _section(kind: Any) -> type | None:
    """The options class that a field holds, or may hold instead of None; None where it holds something else."""
    kinds = [each for each in get_args(kind) or (kind,) if each is not type(None)]
    found = kinds[0] if len(kinds) == 1 else None
    return found if isinstance(found, type) and dataclasses.is_dataclass(found) else None


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))


def coerce(kind: Any, value: Any, where: str) -> Any:
    """A plain value as the type that an option declares, "1e-4" as a float for instance.

    Raises:
        BadOption: The value cannot be read as that type.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        if (expected := _words_or_value(kind)) is not None:
            raise BadOption(f"{where}: expected {expected}, got {value!r}") from None
        first = error.errors()[0]
        inner = "".join(f".{part}" for part in first["loc"])
        raise BadOption(f"{where}{inner}: {first['msg'].lower()} (got {first['input']!r})") from None


def _words_or_value(kind: Any) -> str | None:
    """What is expected where a word such as "auto" may stand for a value; None for other types."""
    parts = get_args(kind)
    words = [str(word) for part in parts if get_origin(part) is Literal for word in get_args(part)]
    values = [_VALUES[part] for part in parts if part in _VALUES]
    return " or ".join([*words, *values]) if words and len(values) == 1 else None


def plain(instance: Any) -> dict[str, Any]:
    """The options of an instance as plain values that YAML and JSON can hold; the inverse of `build`."""
    values = {}
    for name, field in option_fields(type(instance)).items():
        value = getattr(instance, name)
        registry = field.metadata.get("one_of")
        values[name] = registry.describe(value) if registry is not None else _plain_value(value)
    return values


def _plain_value(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain_value(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    return value


def json_schema(cls: type) -> dict[str, Any]:
    """The options of a class as JSON Schema: types, ranges, defaults and help, as they were declared."""
    properties, required = {}, []
    for name, field in option_fields(cls).items():
        told = _field_schema(cls, field)
        if field.default is dataclasses.MISSING:
            required.append(name)
        elif field.metadata.get("one_of") is None:
            told["default"] = _plain_value(field.default)
        else:
            told["default"] = field.metadata["one_of"].describe(field.default)
        properties[name] = {"description": field.metadata.get("help", ""), **told}
    whole: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**whole, "required": required} if required else whole


def _field_schema(cls: type, field: dataclasses.Field[Any]) -> dict[str, Any]:
    from pydantic import PydanticUserError

    registry, kind = field.metadata.get("one_of"), _hints(cls)[field.name]
    if registry is not None:
        named = {"type": "string", "enum": list(registry)}  # and no more: parts may hold parts of their own kind
        return {"anyOf": [named, {"type": "object", "properties": {"name": named}, "required": ["name"]}]}
    section = _section(kind)
    if section is not None:
        return json_schema(section)
    try:
        told = dict(_adapter(kind).json_schema())
    except PydanticUserError:  # it may hold something that only Python can give; what is left is what JSON can say
        left = [each for each in get_args(kind) if each in (str, int, float, bool, type(None))]
        told = {"anyOf": [_adapter(each).json_schema() for each in left]} if left else {}
    numbers = told["items"] if isinstance(told.get("items"), dict) else told
    for key, bound in (("minimum", field.metadata.get("low")), ("maximum", field.metadata.get("high"))):
        if bound is not None and numbers.get("type") in ("integer", "number"):
            numbers[key] = bound
    return told
