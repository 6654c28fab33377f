"""Registries find their members, and refuse what they do not know."""

from dataclasses import dataclass

import pytest

from unnoise.errors import BadOption, UnknownName
from unnoise.objectives.times import UniformTimes, time_densities
from unnoise.objectives.weightings import UniformWeighting, weightings
from unnoise.options import option
from unnoise.registry import Choice, Registry


@pytest.fixture
def shapes():
    registry = Registry("shape")

    @registry.register("round")
    @dataclass(frozen=True)
    class Round:
        radius: float = option(1.0, help="half of the width", low=0.0)

    @registry.register("square")
    class Square:
        @dataclass(frozen=True)
        class Config:
            side: int = option(2, help="length", low=1)

    return registry


def test_a_registry_is_a_mapping_in_order_of_names(shapes):
    assert list(shapes) == ["round", "square"]
    assert len(shapes) == 2
    assert "round" in shapes
    assert "oval" not in shapes
    assert shapes["round"].registered_name == "round"


def test_two_members_of_one_name_are_refused(shapes):
    with pytest.raises(ValueError, match="two shapes are called 'round'"):
        shapes.register("round")(object)


def test_an_unknown_name_is_told_the_nearest_and_all(shapes):
    with pytest.raises(
        UnknownName, match=r"no shape is called 'rond'; did you mean 'round'\? \(known: round, square\)"
    ):
        shapes.build("rond")
    with pytest.raises(BadOption, match=r"^part\.name: no shape is called 'rond'"):
        shapes.build("rond", "part")


def test_parts_are_built_from_names_from_options_and_from_themselves(shapes):
    part = shapes.build({"name": "round", "radius": "2"})
    assert part.radius == 2.0
    assert shapes.build("round").radius == 1.0
    assert shapes.build(part) is part
    assert shapes.build(shapes.describe(part)) == part
    assert shapes.describe(part) == {"name": "round", "radius": 2.0}


def test_a_member_with_a_config_is_chosen_now_and_made_later(shapes):
    choice = shapes.build({"name": "square", "side": 3})
    assert choice == Choice("square", shapes["square"].Config(3))
    assert shapes.build(choice) is choice
    assert shapes.build(shapes.describe(choice)) == choice
    assert hash(choice) == hash(shapes.build(shapes.describe(choice)))


@pytest.mark.parametrize("spec", [3, None, {}, {"radius": 2}, ["round"]])
def test_a_spec_without_a_name_is_refused(shapes, spec):
    with pytest.raises(BadOption, match="expected a shape as a name"):
        shapes.build(spec)


@pytest.mark.parametrize("values", [{"radius": -1}, {"radios": 1}, {"radius": "wide"}])
def test_a_bad_option_is_named(shapes, values):
    with pytest.raises(BadOption, match=rf"^part\.{next(iter(values))}"):
        shapes.build({"name": "round", **values}, "part")


def test_a_part_of_another_registry_is_refused_even_if_both_have_one_name():
    assert UniformTimes.registered_name == UniformWeighting.registered_name == "uniform"
    for registry, part in ((weightings, UniformTimes()), (time_densities, UniformWeighting())):
        with pytest.raises(BadOption, match="expected a"):
            registry.build(part)


def test_the_schema_tells_type_default_help_and_range(shapes):
    schema = shapes.schema("round")["radius"]
    assert schema["default"] == 1.0
    assert schema["help"] == "half of the width"
    assert schema["low"] == 0.0
    assert "high" not in schema
    assert "float" in schema["type"]
