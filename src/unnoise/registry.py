"""Registries that find their members by themselves: a new part is one new file in its room."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import BadOption, UnknownName
from .options import build, json_schema, option_fields, plain

T = TypeVar("T")
C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Choice:
    """A member that is made later, when what it is made for is known: its name and its options.

    Args:
        name: Of the member.
        config: An instance of the member's `Config`.
    """

    name: str
    config: Any


class Registry(Mapping[str, "type[T]"], Generic[T]):
    """The parts of one kind, by the name that a person types.

    The modules of the room are imported on the first look-up by name, never at import: a library user who imports a class
    pays for nothing else. A member is either a frozen dataclass, whose fields are its options, or a class with a nested
    or assigned frozen dataclass `Config`.

    Args:
        kind: What a member is, for messages: "sampler".
        package: The room whose modules hold the members: "unnoise.samplers"; None if they stand beside the registry.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self.package = package
        self._members: dict[str, type[T]] = {}
        self._discovered = package is None

    def register(self, name: str) -> Callable[[C], C]:
        """A class decorator that makes the class known under `name`, and notes the name on it.

        Raises:
            ValueError: The name is taken.
        """

        def decorate(cls: C) -> C:
            if name in self._members:
                raise ValueError(f"two {self.kind}s are called {name!r}")
            cls.registered_name = name  # type: ignore[attr-defined]
            self._members[name] = cls
            return cls

        return decorate

    def _discover(self) -> dict[str, type[T]]:
        if not self._discovered and self.package is not None:
            room = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(room.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._discovered = True
        return self._members

    def __getitem__(self, name: str) -> type[T]:
        members = self._discover()
        if name not in members:
            raise UnknownName(self.kind, name, members)
        return members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._discover()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._discover()))

    def __len__(self) -> int:
        return len(self._discover())

    def options_class(self, name: str) -> type:
        """The dataclass that holds the options of a member: itself, or its `Config`."""
        cls: Any = self[name]
        return getattr(cls, "Config", cls)  # type: ignore[no-any-return]

    def schema(self, name: str) -> dict[str, dict[str, Any]]:
        """The options of a member: type, default, help and range of each, by name."""
        fields = option_fields(self.options_class(name))
        return {
            key: {
                "type": str(field.type),
                "default": field.default,
                **{k: v for k, v in field.metadata.items() if v is not None},
            }
            for key, field in fields.items()
        }

    def json_schema(self) -> dict[str, Any]:
        """All that `build` takes, as JSON Schema: the name of a member, or its name with its options."""
        members = []
        for name in self:
            told = json_schema(self.options_class(name))
            head = {"name": {"const": name, "type": "string"}}
            about = (self[name].__doc__ or "").strip().partition("\n")[0]
            told |= {"title": name, "description": about, "properties": {**head, **told["properties"]}}
            members.append({**told, "required": ["name", *told.get("required", ())]})
        return {"anyOf": [{"type": "string", "enum": list(self)}, *members]}

    def options(self, spec: Any, where: str = "") -> tuple[str, Any]:
        """The name and the checked options object of a part given as a name or as `{name: ..., option: value}`.

        Raises:
            UnknownName: No member is called so.
            BadOption: The spec has no name, or an option is wrong.
        """
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping) or "name" not in spec:
            at = f"{where}: " if where else ""
            raise BadOption(f"{at}expected a {self.kind} as a name or as {{name: ..., option: value}}, got {spec!r}")
        values = {key: value for key, value in spec.items() if key != "name"}
        name = str(spec["name"])
        try:
            return name, build(self.options_class(name), values, where or name)
        except UnknownName as error:
            raise (BadOption(f"{where}.name: {error}") if where else error) from None

    def build(self, spec: Any, where: str = "") -> Any:
        """The part that a spec describes: an instance of a member that is its own options, else a `Choice`.

        Args:
            spec: A part or choice as it is, a name, or `{name: ..., option: value}`.
            where: The dotted path that leads here, for messages.

        Raises:
            UnknownName: No member is called so.
            BadOption: An option is wrong.
        """
        if isinstance(spec, Choice) or type(spec) in self._members.values():
            return spec
        name, options = self.options(spec, where)
        return options if self.options_class(name) is self[name] else Choice(name, options)

    def describe(self, part: Any) -> dict[str, Any]:
        """The spec of a part or choice: `build(describe(part)) == part`."""
        if isinstance(part, Choice):
            return {"name": part.name, **plain(part.config)}
        return {"name": part.registered_name, **plain(part)}
