"""What every registered part of every room must do."""

import dataclasses
import importlib
import json
import pkgutil

import pytest

import unnoise
from unnoise.errors import BadOption, UnknownName
from unnoise.registry import Registry

NEEDED = {
    "tabulated": {"values": [0.9, 0.5]},
    "folder": {"path": "."},
    "array": {"path": "."},
    "parquet": {"path": "."},
    "transformers": {"settings": "{}", "width": 8, "vocabulary": 9},
}


def registries():
    """Every registry of the package."""
    found = {}
    for module in pkgutil.walk_packages(unnoise.__path__, "unnoise."):
        if not module.ispkg and "cli" not in module.name and not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Registry):
                    found[value.kind] = value
    return found


REGISTRIES = registries()
MEMBERS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
WITH_OPTIONS = [(k, n) for k, n in MEMBERS if dataclasses.is_dataclass(REGISTRIES[k].options_class(n))]


def test_the_known_rooms_have_registries():
    known = {"schedule", "prediction", "sampler", "guidance rule", "objective", "weighting", "time density", "codec"}
    assert known <= set(REGISTRIES)


@pytest.fixture(params=WITH_OPTIONS, ids=lambda pair: " ".join(pair))
def member(request):
    kind, name = request.param
    return REGISTRIES[kind], name


def spec(registry, name):
    fields = [
        f for f in dataclasses.fields(registry.options_class(name)) if f.init and f.default is dataclasses.MISSING
    ]
    given = NEEDED.get(name, {})
    return {"name": name, **{f.name: given.get(f.name, ".") for f in fields}}


def test_a_part_survives_its_description_through_json(member):
    registry, name = member
    part = registry.build(spec(registry, name))
    described = json.loads(json.dumps(registry.describe(part)))
    assert described["name"] == name
    assert registry.build(described) == part
    assert hash(registry.build(described)) == hash(part)
    assert registry.build(part) is part


def test_its_options_are_frozen(member):
    registry, name = member
    cls = registry.options_class(name)
    assert cls.__dataclass_params__.frozen
    assert cls.__dataclass_params__.eq


def test_an_unknown_option_is_named_with_the_nearest_known_one(member):
    registry, name = member
    for option in [f.name for f in dataclasses.fields(registry.options_class(name)) if f.init] or ["x"]:
        wrong = option + "x"
        expected = f"did you mean '{option}'" if option != "x" else "known: none"
        with pytest.raises(BadOption, match=rf"{wrong}: there is no such option.*{expected}"):
            registry.build(spec(registry, name) | {wrong: 1})


def test_every_option_has_a_help_line_and_numbers_out_of_range_are_refused(member):
    registry, name = member
    for option, schema in registry.schema(name).items():
        assert schema["help"]
        assert "\n" not in schema["help"]
        default = schema["default"]
        for bound, step in (("low", -1), ("high", 1)):
            if bound in schema and isinstance(default, (int, float)):
                with pytest.raises(BadOption, match=option):
                    registry.build(spec(registry, name) | {option: schema[bound] + step})
                with pytest.raises(BadOption, match=option):
                    registry.build(spec(registry, name) | {option: float("nan")})


def test_defaults_lie_in_their_ranges(member):
    registry, name = member
    for schema in registry.schema(name).values():
        default = schema["default"]
        for value in default if isinstance(default, tuple) else (default,):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert schema.get("low", value) <= value <= schema.get("high", value)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_name_that_nobody_has_is_told_those_that_exist(kind):
    registry = REGISTRIES[kind]
    first = next(iter(registry))
    with pytest.raises(UnknownName, match=f"no {kind} is called '{first}x'; did you mean"):
        registry[first + "x"]
