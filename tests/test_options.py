"""Options: declared once, checked where they enter, and read back as they were."""

import json
import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Literal

import pytest

from unnoise.errors import BadOption
from unnoise.options import build, coerce, option, option_fields, plain


@dataclass(frozen=True)
class Inner:
    width: int = option(8, help="how wide", low=1, high=100)


@dataclass(frozen=True)
class Options:
    rate: float = option(1e-3, help="how fast", low=0.0, high=1.0)
    steps: int = option(10, help="how many", low=1)
    kind: Literal["fast", "slow"] = option("fast", help="which")
    betas: tuple[float, float] = option((0.9, 0.99), help="two shares", low=0.0, high=1.0)
    cap: float | None = option(None, help="at most, or None", low=0.0)
    on: bool = option(False, help="whether")
    inner: Inner = option(Inner(), help="a part")


@dataclass(frozen=True)
class Required:
    path: str = option(help="where")


def test_nothing_said_gives_the_defaults():
    assert build(Options, {}) == Options()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": "1e-4"}, {"rate": 1e-4}),
        ({"rate": 1}, {"rate": 1.0}),
        ({"steps": "12"}, {"steps": 12}),
        ({"steps": 12.0}, {"steps": 12}),
        ({"on": "true"}, {"on": True}),
        ({"betas": [0.5, "0.6"]}, {"betas": (0.5, 0.6)}),
        ({"cap": None}, {"cap": None}),
        ({"cap": "2"}, {"cap": 2.0}),
        ({"inner": {"width": "3"}}, {"inner": Inner(3)}),
        ({"inner": Inner(4)}, {"inner": Inner(4)}),
    ],
)
def test_plain_values_become_what_is_declared(values, expected):
    built = build(Options, values)
    ((name, value),) = expected.items()
    assert getattr(built, name) == value
    assert type(getattr(built, name)) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"^part\.rat: there is no such option; did you mean 'rate'\? \(known: .*steps"),
        ({"rate": -0.1}, r"^part\.rate: must be at least 0.0, got -0.1$"),
        ({"rate": 1.5}, r"^part\.rate: must be at most 1.0, got 1.5$"),
        ({"rate": math.nan}, r"^part\.rate: must be"),
        ({"rate": "fast"}, r"^part\.rate: .*number"),
        ({"steps": 1.5}, r"^part\.steps: .*integer"),
        ({"steps": 0}, r"^part\.steps: must be at least 1, got 0$"),
        ({"steps": None}, r"^part\.steps: .*integer"),
        ({"kind": "medium"}, r"^part\.kind: .*'fast' or 'slow'"),
        ({"betas": (0.5, 2.0)}, r"^part\.betas: must be at most 1.0, got 2.0$"),
        ({"betas": (0.5,)}, r"^part\.betas"),
        ({"cap": -1}, r"^part\.cap: must be at least"),
        ({"on": "maybe"}, r"^part\.on: .*boolean"),
        ({"inner": {"widht": 3}}, r"^part\.inner\.widht: there is no such option; did you mean 'width'"),
        ({"inner": {"width": 0}}, r"^part\.inner\.width: must be at least 1"),
        ({"inner": 3}, r"^part\.inner: expected options by name, got 3$"),
    ],
)
def test_a_bad_option_is_named_with_its_path_and_what_came(values, message):
    with pytest.raises(BadOption, match=message) as caught:
        build(Options, values, "part")
    assert "\n" not in str(caught.value)


def test_what_has_no_default_must_be_given():
    with pytest.raises(BadOption, match=r"^path: must be given$"):
        build(Required, {})
    assert build(Required, {"path": "here"}).path == "here"


def test_options_survive_json():
    options = Options(rate=0.5, betas=(0.1, 0.2), cap=3.0, inner=Inner(9))
    values = json.loads(json.dumps(plain(options)))
    assert values["betas"] == [0.1, 0.2]
    assert values["inner"] == {"width": 9}
    assert build(Options, values) == options


def test_options_are_frozen_and_hashable_and_know_their_help():
    with pytest.raises(FrozenInstanceError):
        Options().rate = 2
    assert hash(Options()) == hash(build(Options, {}))
    assert list(option_fields(Options)) == ["rate", "steps", "kind", "betas", "cap", "on", "inner"]
    assert option_fields(Options)["rate"].metadata["help"] == "how fast"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (bool | Literal["auto"], "expected auto or true or false, got 'maybe'"),
        (int | Literal["auto"], "expected auto or a whole number, got 'maybe'"),
        (float | Literal["auto", "data"], "expected auto or data or a number, got 'maybe'"),
    ],
)
def test_where_a_word_may_stand_for_a_value_both_are_named(kind, told):
    assert coerce(kind, "auto", "here") == "auto"
    with pytest.raises(BadOption) as refused:
        coerce(kind, "maybe", "here")
    assert str(refused.value) == f"here: {told}"


def test_values_are_coerced_by_themselves_too():
    assert coerce(float, "1e-4", "x") == 1e-4
    with pytest.raises(BadOption, match=r"^x\.1: "):
        coerce(tuple[int, int], (1, "b"), "x")


def test_options_are_checked_when_a_part_is_made_by_hand_too():
    from unnoise.guidance.classifier_free import ClassifierFreeGuidance
    from unnoise.objectives.mse import MSEObjective
    from unnoise.objectives.weightings import MinSNRWeighting
    from unnoise.process.linear import LinearSchedule
    from unnoise.samplers.ddpm import DDPMSampler
    from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler

    with pytest.raises(BadOption, match="variance"):
        DDPMSampler("betta")
    with pytest.raises(BadOption, match="order: must be at most 2, got 3"):
        DPMSolverPPSampler(order=3)
    with pytest.raises(BadOption, match="scale: must be at least 0, got -3"):
        ClassifierFreeGuidance(-3)
    with pytest.raises(BadOption, match="beta_end: must be at most"):
        LinearSchedule(beta_end=1.5)
    assert ClassifierFreeGuidance(interval=[0.1, 0.9]).interval == (0.1, 0.9)
    assert MSEObjective(weighting={"name": "min_snr", "gamma": 2}).weighting == MinSNRWeighting(2.0)


@dataclass(frozen=True)
class Optional:
    inner: Inner | None = option(None, help="a part, or none")


def test_a_part_that_may_be_left_out_is_checked_where_it_is_given():
    assert build(Optional, {}) == build(Optional, {"inner": None}) == Optional()
    assert build(Optional, {"inner": {"width": "9"}}) == Optional(Inner(9))
    assert plain(Optional(Inner(9))) == {"inner": {"width": 9}}
    assert plain(Optional()) == {"inner": None}
    with pytest.raises(BadOption, match=r"outer\.inner\.width: must be at least 1, got 0"):
        build(Optional, {"inner": {"width": 0}}, "outer")
    with pytest.raises(BadOption, match=r"inner\.widht: there is no such option; did you mean 'width'"):
        build(Optional, {"inner": {"widht": 1}})
    with pytest.raises(BadOption, match="inner: expected options by name, got 3"):
        build(Optional, {"inner": 3})
