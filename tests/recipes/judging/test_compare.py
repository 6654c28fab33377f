"""Comparisons: who is better, and whether that is more than chance."""

import json
import math

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, DataError
from unnoise.evaluation.metrics.base import Estimate
from unnoise.recipes.judging.compare import compare, parse_subject, significance, table
from unnoise.recipes.judging.plan import EvaluationSettings

HALF = 1.959963984540054  # of a 95 % interval around a number with a standard error of 1
KEPT = EvaluationSettings(metrics=("kid",), features="pixels", memorisation=False)


def estimate(value, error=1.0):
    return Estimate(value, value - HALF * error, value + HALF * error, 100, 100, "exact")


def test_a_difference_of_two_normal_numbers_has_the_p_value_of_a_z_test():
    best, other = significance([estimate(0.0), estimate(3.0)], "lower")
    assert best.best
    assert best.p is None
    # z = 3 / sqrt(2); twice the upper tail of the normal distribution there, by tables 0.0339.
    assert other.p == pytest.approx(0.03389, abs=1e-5)
    assert other.worse


def test_several_comparisons_are_corrected_as_holm_does():
    values = [estimate(0.0), estimate(3.0), estimate(2.9), estimate(0.5)]
    raw = [math.erfc(value / math.sqrt(2) / math.sqrt(2)) for value in (3.0, 2.9, 0.5)]
    found = significance(values, "lower")
    assert [each.p for each in found[1:]] == pytest.approx([3 * raw[0], max(3 * raw[0], 2 * raw[1]), raw[2]])
    assert not any(each.worse for each in found)  # each alone would have been


def test_higher_may_be_better_and_numbers_may_be_missing():
    found = significance([estimate(0.2, 0.01), None, estimate(0.9, 0.01)], "higher")
    assert found[1] is None
    assert found[2].best
    assert found[0].worse


def test_equal_numbers_are_never_worse_than_each_other():
    first, second = significance([estimate(1.0, 0.0), estimate(1.0, 0.0)], "lower")
    assert first.best
    assert second.p == 1.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("runs/a", ("runs/a", {})),
        ("runs/a@steps=5,guidance=2", ("runs/a", {"steps": "5", "guidance": "2"})),
        ("me@home/a", ("me@home/a", {})),
        ("me@home/a@steps=5", ("me@home/a", {"steps": "5"})),
    ],
)
def test_a_subject_is_a_path_and_perhaps_settings(text, found):
    assert parse_subject(text) == found


def test_the_better_of_two_folders_is_found_and_equal_ones_are_not_told_apart(real_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    real, a, b = (real_digits.x[part].numpy() for part in order.split(599))
    rng = np.random.default_rng(0)
    noisy = (b + rng.normal(0, 40, b.shape)).clip(0, 255).astype(np.uint8)
    for name, x in (("real", real), ("a", a), ("b", b), ("noisy", noisy)):
        np.savez(f"{name}.npz", x=x)
    found = compare(["a.npz", "b.npz", "noisy.npz"], data="real.npz", settings=KEPT, out="both")
    a, b, worse = found.standings["kid"]
    assert worse.worse
    assert not a.worse
    assert not b.worse
    assert a.best or b.best
    assert table(found)[0] == ["", "a.npz", "b.npz", "noisy.npz", "better"]
    written = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert written["standings"]["kid"][2]["worse"] is True
    assert "noisy.npz" in (tmp_path / "both" / "index.html").read_text()


def test_settings_of_one_model_are_compared_with_the_same_number_of_samples(moons, tmp_path):
    settings = EvaluationSettings(metrics=("energy",), memorisation=False)
    found = compare([str(moons), f"{moons}@steps=2"], n=200, settings=settings, out=tmp_path / "out")
    assert found.names == ("moons", "moons@steps=2")
    steps = [one.result.values["subject"]["steps"] for one in found.judged]
    assert steps == [20, 2]
    assert {one.result.values["subject"]["n"] for one in found.judged} == {200}
    assert found.standings["energy"][0].best


def test_models_of_different_data_are_not_compared_without_saying_by_what(moons, digits, tmp_path):
    with pytest.raises(DataError, match="--data"):
        compare([str(moons), str(digits)], n=20, settings=KEPT, out=tmp_path)
    with pytest.raises(BadOption, match="at least two"):
        compare([str(moons)], n=20, settings=KEPT, out=tmp_path)
