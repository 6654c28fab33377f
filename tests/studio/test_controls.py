"""Controls follow from options: whatever is registered has them, and what they hold builds the part."""

from dataclasses import dataclass
from typing import Literal

import pytest

from unnoise.options import option
from unnoise.process.base import schedules
from unnoise.registry import Registry
from unnoise.samplers.base import samplers
from unnoise.studio.controls import controls, parts
from unnoise.training.settings import TrainingSettings


@dataclass(frozen=True)
class Options:
    name: str = option(help="of what")
    share: float = option(0.5, help="of the whole", low=0.0, high=1.0)
    open_end: float = option(3.0, help="as much as you like", low=0.0)
    count: int = option(4, help="how many", low=1, high=9)
    mode: Literal["slow", "fast"] = option("fast", help="which way")
    on: bool = option(False, help="whether")
    between: tuple[float, float] = option((0.0, 1.0), help="from where to where")
    maybe: float | None = option(None, help="or nothing", low=0.0)
    hidden: tuple[tuple[float, ...], ...] = option((), help="what no page can show")


def test_every_kind_of_option_has_its_control_with_its_range_and_help():
    found = {each["name"]: each for each in controls(Options)}
    kinds = {name: each["kind"] for name, each in found.items()}
    assert kinds == {
        "name": "text", "share": "number", "open_end": "number", "count": "whole", "mode": "choice", "on": "switch",
        "between": "numbers", "maybe": "number",
    }  # fmt: skip
    assert (found["share"]["low"], found["share"]["high"], found["share"]["to"]) == (0.0, 1.0, 1.0)
    assert (found["open_end"]["high"], found["open_end"]["to"]) == (None, 12.0)
    assert found["mode"]["choices"] == ["slow", "fast"]
    assert found["name"]["required"]
    assert not found["share"]["required"]
    assert found["share"]["help"] == "of the whole"


def test_a_new_part_appears_by_itself():
    registry = Registry("thing")
    registry.register("new")(Options)
    (only,) = parts(registry)
    assert only["name"] == "new"
    assert [each["name"] for each in only["controls"]][:2] == ["name", "share"]


@pytest.mark.parametrize("registry", [samplers, schedules], ids=["samplers", "schedules"])
def test_the_defaults_of_the_controls_build_every_part(registry):
    for part in parts(registry):
        assert part["summary"]
        values = {each["name"]: each["default"] for each in part["controls"] if each["default"] is not None}
        if any(each["required"] for each in part["controls"]):
            continue
        built = registry.build({"name": part["name"], **values})
        assert built == registry.build(part["name"])


def test_a_training_has_a_slider_for_what_a_person_turns_first():
    found = {each["name"]: each for each in controls(TrainingSettings)}
    assert {"steps", "batch_size", "lr", "warmup", "clip"} <= set(found)
    assert found["steps"]["low"] == 1
