"""What an error is made of: parts that sum to it, and the right one blamed."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, DataError
from unnoise.model import Model
from unnoise.recipes.judging.levels import Levels, measure_levels
from unnoise.recipes.judging.parts import ErrorParts, Part, table
from unnoise.recipes.judging.run import find_subject
from unnoise.recipes.judging.split import ReconstructionSubject, error_parts
from unnoise.training.validation import Strata

pytestmark = pytest.mark.usefixtures("quick_features")

ASKED = {"n": 400, "fine": 40}


@pytest.fixture(scope="module")
def coarse(moons, tmp_path_factory):
    """Samples in two steps with far too much guidance."""
    return error_parts(moons, steps=2, guidance=12.0, out=tmp_path_factory.mktemp("parts") / "coarse", **ASKED)


def test_the_parts_sum_to_the_distance_of_the_samples(coarse):
    whole = coarse.judged["as asked"].result.estimates["energy"].value
    assert [part.name for part in coarse.parts] == ["denoiser", "guidance", "steps"]
    assert coarse.floor.value + sum(part.value for part in coarse.parts) == pytest.approx(whole, rel=1e-9)


def test_each_part_is_the_difference_of_two_evaluations(coarse, moons, tmp_path):
    found = {name: each.result.values["subject"] for name, each in coarse.judged.items()}
    assert {name: each["steps"] for name, each in found.items()} == {"as asked": 2, "many steps": 40, "no guidance": 40}
    assert {name: each["guidance"]["scale"] for name, each in found.items()} == {
        "as asked": 12, "many steps": 12, "no guidance": 1
    }  # fmt: skip
    values = {name: each.result.estimates["energy"] for name, each in coarse.judged.items()}
    steps, guidance = coarse.parts[2], coarse.parts[1]
    a, b = values["as asked"], values["many steps"]
    assert steps.value == a.value - b.value
    assert steps.low == steps.value - math.hypot(a.value - a.low, b.high - b.value)
    assert steps.high == steps.value + math.hypot(a.high - a.value, b.value - b.low)
    assert guidance.value == values["many steps"].value - values["no guidance"].value
    # All are made of the same noise as any samples of the model.
    made = coarse.judged["no guidance"].result.made
    model = Model.load(moons)
    names = [model.spec.class_names[int(i)] for i in find_subject(moons)[0].labels(400)]
    assert torch.equal(made, model.sample(400, label=names, steps=40, guidance=1.0, batch_size=400).tensor)


def test_what_was_made_wrong_on_purpose_is_blamed(moons, coarse, tmp_path):
    assert coarse.first.name in ("steps", "guidance")
    few = error_parts(moons, steps=2, guidance=1.0, out=tmp_path / "few", **ASKED)
    assert [part.name for part in few.parts] == ["denoiser", "steps"]
    assert few.first.name == "steps"
    assert "Mend the steps first: take more --steps (now 2)" in few.sentence
    pushed = error_parts(moons, steps=40, guidance=12.0, out=tmp_path / "pushed", **ASKED)
    assert pushed.first.name == "guidance"
    assert "lower --guidance (now 12)" in pushed.sentence


def test_a_denoiser_that_learned_nothing_is_blamed_and_its_levels_drawn(digits, tmp_path):
    found = error_parts(digits, n=60, steps=8, fine=8, guidance=1.0, metric="kid", out=tmp_path / "out")
    assert found.first.name == "denoiser"
    assert f"It errs most at t = {found.levels.worst:.2f}, where its loss is" in found.sentence
    assert found.sentence.endswith("times that of the best linear denoiser of the data.")
    assert not found.levels.seen  # a third was held out
    assert found.floor is not None
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Mend the denoiser first" in page
    assert page.count("<img") == 4  # real data, two kinds of samples, the curve


def test_what_was_found_is_kept_and_not_made_again(coarse, moons, monkeypatch):
    kept = json.loads((coarse.folder / "parts.json").read_text())
    assert kept["sentence"] == coarse.sentence
    assert [each["name"] for each in kept["parts"]] == [part.name for part in coarse.parts]
    monkeypatch.setattr(Model, "sample", None)
    again = error_parts(moons, steps=2, guidance=12.0, out=coarse.folder, **ASKED)
    assert again.parts == coarse.parts


def test_a_run_that_was_stopped_gives_nothing_and_goes_on(moons, tmp_path):
    assert error_parts(moons, steps=2, out=tmp_path / "out", stop=lambda: True, **ASKED) is None
    assert error_parts(moons, steps=2, out=tmp_path / "out", **ASKED) is not None


def test_the_table_says_all_of_it(coarse):
    lines = table(coarse)
    assert coarse.floor is not None
    assert [line[0].partition(":")[0] for line in lines] == [
        "", "real data", "+ denoiser", "+ guidance", "+ steps", "= samples as they are asked for"
    ]  # fmt: skip
    assert all(len(line) == 3 for line in lines)


def test_levels_are_the_validation_loss_beside_the_least_that_is_possible(moons):
    subject, real = find_subject(moons)
    levels = measure_levels(subject.model, real)
    assert levels.seen
    assert len(levels.excess) == len(levels.loss.t) == 16
    assert sum(levels.excess) > 0
    assert levels.worst in levels.loss.t


def part(name, value, low):
    return Part(name, value, low, 2 * value - low, "", f"mend {name}")


@pytest.mark.parametrize(
    ("parts", "blamed"),
    [
        ([part("codec", 3, 1), part("denoiser", 2, 1)], "codec"),
        ([part("codec", 3, -1), part("denoiser", 2, 1)], "denoiser"),
        ([part("codec", 3, -1), part("denoiser", -2, -3)], None),
    ],
)
def test_the_largest_part_beyond_chance_is_blamed(parts, blamed):
    levels = Levels(Strata(1.0, (1.0, 3.0), (0.2, 0.6)), Strata(0.5, (0.9, 0.1), (0.2, 0.6)), True)
    found = ErrorParts("fid", {}, None, tuple(parts), levels, None)
    assert (found.first and found.first.name) == blamed
    assert levels.worst == 0.6
    assert ("judge more samples" in found.sentence) == (blamed is None)
    assert ("t = 0.60" in found.sentence) == (blamed == "denoiser")


def test_reconstructions_are_what_the_codec_gives_back(digits):
    model, real = Model.load(digits), find_subject(digits)[1]
    subject = ReconstructionSubject(model, real.held_out)
    assert torch.equal(subject.samples(3, 5), real.held_out.x[3:8])  # pixels lose nothing
    assert torch.equal(subject.labels(4), real.held_out.labels[:4])
    assert subject.describe() == {"codec of": model.hash, "of": real.held_out.fingerprint()}


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"metric": "precision"}, BadOption, "expected a distance, such as fid"),
        ({"grid": "1,0.5,0", "steps": 2}, BadOption, "the times given make 2 steps, and 40 were asked for"),
    ],
)
def test_what_has_no_parts_is_refused(moons, tmp_path, asked, error, said):
    with pytest.raises(error, match=said):
        error_parts(moons, out=tmp_path / "out", **ASKED, **asked)
    np.save(tmp_path / "samples.npy", np.zeros((40, 2), dtype=np.float32))
    with pytest.raises(DataError, match="is no model"):
        error_parts(tmp_path / "samples.npy", data="moons", **ASKED)


def test_a_part_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        part("codec", 1, 0).value = 2
