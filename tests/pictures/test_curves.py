import sys

import numpy as np
import pytest
import torch

from unnoise.errors import MissingExtra, ShapeError
from unnoise.pictures import style
from unnoise.pictures.curves import lines, loss_by_time, loss_curve, schedule_curves

X = np.arange(1.0, 101.0)


def amount(picture, colour):
    """How many pixels have nearly this colour."""
    return int((np.abs(np.asarray(picture).astype(int) - style.rgb(colour)).max(-1) < 12).sum())


@pytest.fixture(autouse=True)
def _matplotlib(request):
    if "missing" not in request.node.name:
        pytest.importorskip("matplotlib")


def test_a_loss_curve_needs_nothing_but_losses():
    picture = loss_curve(X, 1 / X)
    assert picture.mode == "RGB"
    assert amount(picture, style.PALETTE[0]) > 300
    assert amount(picture, style.PALETTE[1]) == 0


def test_floor_and_validation_are_drawn_when_given():
    bare = loss_curve(X, 1 / X)
    floored = loss_curve(X, 1 / X, floor=0.01)
    assert amount(floored, style.PALETTE[0]) > amount(bare, style.PALETTE[0])
    held_out = loss_curve(X, 1 / X, torch.from_numpy(1 / X), validation=([1, 50, 100], [1.0, 0.1, 0.05]))
    assert amount(held_out, style.PALETTE[1]) > 100


@pytest.mark.parametrize("losses", [np.full(100, np.nan), np.zeros(100), -X, np.full(100, 0.3)])
def test_losses_of_any_kind_are_drawn(losses):
    assert loss_curve(X, losses, floor=0.0, title="any").size == loss_curve(X, 1 / X).size


def test_no_losses_and_one_loss_are_drawn():
    assert loss_curve([], []).width == loss_curve([1], [0.5]).width


def test_a_logarithmic_axis_bears_what_is_not_positive():
    picture = lines({"a": (X, X), "b": (X, X - 50)}, "calls", "error", "title", log_x=True, log_y=True)
    assert amount(picture, style.PALETTE[1]) > 100
    assert lines({"a": (X, -X)}, log_y=True).size == lines({}).size


def test_curves_of_different_names_have_different_colours():
    picture = lines({str(i): (X, X + 9 * i) for i in range(12)})
    assert all(amount(picture, colour) > 100 for colour in style.PALETTE)


def test_the_loss_above_the_floor_is_stronger_than_what_lies_below():
    t = (torch.arange(8) + 0.5) / 8
    bare, floored = loss_by_time(t, torch.ones(8)), loss_by_time(t, torch.ones(8), torch.full((8,), 0.5))
    assert amount(floored, style.INK) > amount(bare, style.INK) + 500
    assert loss_by_time([0.5], [1.0]).size == bare.size
    beside = loss_by_time(t, torch.ones(8), beside={"another": torch.full((8,), 0.5)})
    assert amount(bare, style.PALETTE[1]) == 0
    assert amount(beside, style.PALETTE[1]) > 500
    with pytest.raises(ShapeError, match=r"expected loss of another of shape \(8,\), got \(3,\)"):
        loss_by_time(t, torch.ones(8), beside={"another": [1, 2, 3]})


def test_schedules_are_drawn_although_their_ends_are_infinite():
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    alpha, sigma = torch.cos(t * np.pi / 2), torch.sin(t * np.pi / 2)
    picture = schedule_curves({"cosine": (t, alpha, sigma, 2 * (alpha / sigma).log()), "flow": (t, 1 - t, t, 1 / t)})
    assert amount(picture, style.PALETTE[0]) > 500
    assert amount(picture, style.PALETTE[1]) > 500


def test_curves_leave_no_trace_in_pyplot():
    before = sys.modules.get("matplotlib.pyplot")
    loss_curve(X, X)
    if before is None:
        assert "matplotlib.pyplot" not in sys.modules
    else:
        assert before.get_fignums() == []


def test_arrays_that_do_not_match_are_named():
    with pytest.raises(ShapeError, match=r"expected losses of shape \(100,\), got \(3,\)"):
        loss_curve(X, [1, 2, 3])
    with pytest.raises(ShapeError, match="y of Heun"):
        lines({"Heun": (X, [1.0])})


@pytest.mark.parametrize(
    "draw",
    [
        lambda: loss_curve(X, X),
        lambda: lines({"a": (X, X)}),
        lambda: loss_by_time([0.5], [1.0]),
        lambda: schedule_curves({"a": (X, X, X, X)}),
    ],
)
def test_a_missing_matplotlib_names_its_extra(monkeypatch, draw):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"drawing curves needs matplotlib.*pip install 'unnoise\[plot\]'"):
        draw()


def test_the_only_loss_of_a_short_run_is_seen():
    curve = loss_curve([5], [0.5], [0.5], validation=([0, 9], [1.0, 0.2]))
    middle = curve.crop((curve.width // 3, 0, 2 * curve.width // 3, curve.height))  # the legend is at the right
    assert amount(middle, style.PALETTE[0]) > 10
