"""Evaluations: their numbers, what they go on with, and what they refuse."""

import json

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, DataError, RunFolderError, UnknownName
from unnoise.evaluation.distances import mean_distance
from unnoise.evaluation.metrics.base import Cloud, metrics
from unnoise.model import Model
from unnoise.recipes.judging.evaluation import Evaluation
from unnoise.recipes.judging.plan import EvaluationSettings
from unnoise.recipes.judging.run import evaluate, find_subject
from unnoise.recipes.judging.subject import ModelSubject, Request
from unnoise.recipes.recipe import load_recipe

QUICK = {"metrics": ("energy",), "memorisation": False}


def scaled(x):
    return x.reshape(len(x), -1).float() / 127.5 - 1


def test_the_numbers_of_a_model_are_those_of_its_samples(moons, tmp_path):
    judged = evaluate(moons, n=60, metrics=("energy", "mmd"), memorisation=False, out=tmp_path / "out")
    model, data = Model.load(moons), load_recipe("two-moons-labels").data.load()
    assert judged.result.made.shape == (60, 2)
    assert torch.equal(judged.result.real.reference.x, data.x)
    energy = judged.result.estimates["energy"]
    x, y = judged.result.made.double(), data.x.double()
    between, within_x, within_y = (mean_distance(*pair) for pair in ((x, y), (x, x), (y, y)))
    unbiased = 2 * between - within_x * len(x) / (len(x) - 1) - within_y * len(y) / (len(y) - 1)
    assert energy.value == pytest.approx(unbiased, rel=1e-6)
    by_hand = metrics.build("mmd").measure(Cloud(judged.result.made), Cloud(data.x))
    assert judged.result.estimates["mmd"].value == pytest.approx(by_hand.value, rel=1e-12)
    # Labels are asked for as often as the data has them, which is here in equal numbers: at any count to within one.
    labels = find_subject(moons)[0].labels(60)
    assert torch.bincount(labels).max() <= 31
    names = [data.spec.class_names[int(i)] for i in labels]
    assert torch.equal(judged.result.made, model.sample(60, label=names, batch_size=60).tensor)


def test_everything_that_a_number_depends_on_stands_beside_it(digits, tmp_path):
    judged = evaluate(digits, n=40, features="pixels", out=tmp_path / "out", seed=3)
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found == json.loads(json.dumps(judged.result.values))
    assert found["subject"]["hash"] == Model.load(digits).hash
    assert (found["subject"]["seed"], found["subject"]["steps"], found["subject"]["n"]) == (3, 2, 40)
    assert len(found["real"]["hash"]) == len(found["features"]["hash"]) == 64
    assert found["features"]["resize"] == "none"
    assert found["held out"]["n"] == round(0.3 * 1797)
    assert {"fid", "kid", "precision", "recall", "density", "coverage", "vendi", "accuracy"} == set(found["metrics"])
    for each in found["metrics"].values():
        assert each["low"] <= each["value"] <= each["high"]
        assert each["num_made"] == 40
    page = (tmp_path / "out" / "index.html").read_text()
    assert found["features"]["hash"] in page
    assert "<script" not in page


def test_the_numbers_that_a_model_computes_in_are_asked_for_and_noted(moons, tmp_path):
    asked = {"n": 12, "device": "cpu", **QUICK}
    made = [evaluate(moons, out=tmp_path / each, precision=each, **asked).result for each in ("fp32", "bf16")]
    assert [each.values["subject"].get("precision") for each in made] == [None, "bf16"]
    apart = (made[0].made.double() - made[1].made.double()).abs()
    assert 0 < apart.max() < 0.1
    with pytest.raises(BadOption, match="device: there is no cuda:9 on this machine"):
        evaluate(moons, out=tmp_path / "none", **{**asked, "device": "cuda:9"})


def test_real_data_that_was_held_out_is_measured_in_the_same_way(digits, tmp_path):
    result = evaluate(
        digits, n=200, features="pixels", metrics=("kid",), memorisation=False, out=tmp_path / "out"
    ).result
    made, real = result.estimates["kid"], result.baseline["kid"]
    assert real.low <= 0 <= real.high  # it is of the same kind as the data
    assert made.low > 10 * real.high  # a model that was trained for three steps makes noise
    assert real.num_made == 200


def test_it_is_said_where_there_is_less_real_data_than_samples(moons, tmp_path):
    few, many = (evaluate(moons, n=n, out=tmp_path / str(n), **QUICK).result for n in (100, 900))
    assert not any("real samples with" in note for note in few.notes)
    assert any("compares only 500 real samples with 500 others" in note for note in many.notes)  # of 1,000 points


def test_an_evaluation_goes_on_where_it_was_and_ends_with_the_same_numbers(moons, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.judging.evaluation.block_size", lambda shape: 16)
    whole = evaluate(moons, n=50, out=tmp_path / "whole", **QUICK)
    asked = iter([False, False, True])
    assert evaluate(moons, n=50, out=tmp_path / "parts", stop=lambda: next(asked), **QUICK) is None
    kept = {path: path.read_bytes() for path in (tmp_path / "parts" / "samples").glob("*.npy")}
    assert len(kept) == 2
    again = evaluate(moons, n=50, out=tmp_path / "parts", **QUICK)
    assert {path: path.read_bytes() for path in kept} == kept
    assert torch.equal(again.result.made, whole.result.made)
    assert again.result.estimates == whole.result.estimates


def test_more_samples_later_are_added_to_those_that_are_there(moons, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.judging.evaluation.block_size", lambda shape: 16)
    evaluate(moons, n=20, out=tmp_path, **QUICK)
    first = (tmp_path / "samples" / "00000000.npy").stat().st_mtime_ns
    more = evaluate(moons, n=40, out=tmp_path, **QUICK)
    assert (tmp_path / "samples" / "00000000.npy").stat().st_mtime_ns == first
    assert torch.equal(more.result.made, evaluate(moons, n=40, out=tmp_path / "new", **QUICK).result.made)


def test_parts_made_by_two_processes_are_the_parts_of_one(moons, tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.judging.evaluation.block_size", lambda shape: 16)
    one = evaluate(moons, n=70, out=tmp_path / "one", **QUICK)
    subject, real = find_subject(moons, {"seed": 0})
    for k in (1, 0):
        part = Evaluation(subject, real, EvaluationSettings(**QUICK), tmp_path / "two")
        assert part.make(70, part.prepare(), part=(k, 2))
    two = part.measure(70, part.prepare())
    assert two.estimates == one.result.estimates
    for path in (tmp_path / "one" / "samples").glob("*.npy"):
        assert (tmp_path / "two" / "samples" / path.name).read_bytes() == path.read_bytes()


def test_two_processes_give_the_numbers_of_one(interpreters, moons, tmp_path):
    unnoise = "import runpy; runpy.run_module('unnoise', run_name='__main__')"
    arguments = ["evaluate", moons, "-n", "1200", "--metrics", "energy,mmd", "--no-memorisation"]
    interpreters.together(2, unnoise, *arguments, "-o", tmp_path / "two", CUDA_VISIBLE_DEVICES="")
    code = interpreters.run(unnoise, *arguments, "-o", tmp_path / "one", CUDA_VISIBLE_DEVICES="")
    assert code == 0, interpreters.said.read_text()
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert two["metrics"] == one["metrics"]
    assert len(list((tmp_path / "two" / "samples").glob("*.npy"))) == 3


# Folders of samples


def test_a_folder_of_pictures_is_judged_like_the_array_of_the_same(pictures, real_digits, tmp_path):
    made = real_digits.x[1000:1060]
    np.savez(tmp_path / "made.npz", x=made.numpy())
    kept = {"data": "digits", "features": "pixels", "metrics": ("fid", "kid"), "memorisation": False}
    folder = evaluate(pictures("made", made), out=tmp_path / "a", **kept)
    array = evaluate(tmp_path / "made.npz", out=tmp_path / "b", **kept)
    assert folder.result.values["metrics"] == array.result.values["metrics"]
    by_hand = metrics.build("kid").measure(Cloud(scaled(made)), Cloud(scaled(real_digits.x)))
    assert folder.result.estimates["kid"].value == pytest.approx(by_hand.value, rel=1e-6)  # pixels are float32


def test_some_of_a_sorted_folder_are_some_of_all_of_it(pictures, real_digits, tmp_path):
    order = real_digits.labels.argsort(stable=True)[::3]
    folder = pictures("sorted", real_digits.x[order])
    judged = evaluate(
        folder, data="digits", features="pixels", n=200, metrics=("kid",), memorisation=False, out=tmp_path / "out"
    )
    kid = judged.result.estimates["kid"]
    assert kid.low <= 0 <= kid.high  # the first 200 are zeros, ones and twos only
    again = evaluate(
        folder, data="digits", features="pixels", n=100, metrics=("kid",), memorisation=False, out=tmp_path / "out"
    )
    assert torch.equal(again.result.made, judged.result.made[:100])


def test_folders_named_like_labels_are_held_to_them(pictures, real_digits, tmp_path):
    chosen = torch.arange(0, 1797, 20)
    labels = real_digits.labels[chosen].clone()
    labels[:30] = (labels[:30] + 1) % 10  # a third is not what its folder says
    folder = pictures("made", real_digits.x[chosen], labels)
    judged = evaluate(
        folder, data="digits", features="pixels", metrics=("accuracy",), memorisation=False, out=tmp_path / "out"
    )
    accuracy = judged.result.estimates["accuracy"]
    assert accuracy.low < 1 - 30 / len(chosen) < accuracy.high


def test_a_folder_of_training_pictures_is_reported_as_copies_and_new_pictures_are_not(pictures, real_digits, tmp_path):
    train = tmp_path / "train.npz"
    np.savez(train, x=real_digits.x[:900].numpy())
    copied = evaluate(
        pictures("copied", real_digits.x[:200]), data="digits", train=str(train), features="pixels", metrics=("kid",),
        out=tmp_path / "a",
    ).result  # fmt: skip
    fresh = evaluate(
        pictures("fresh", real_digits.x[900:1300]), data="digits", train=str(train), features="pixels",
        metrics=("kid",), out=tmp_path / "b",
    ).result  # fmt: skip
    assert copied.memorisation.verdict == "copies"
    assert fresh.memorisation.verdict == "no sign of copying"
    assert copied.memorisation.spaces["pixels"].copies.value == 1.0
    assert any("stand in the training data too" in note for note in copied.notes)


# Bad input


def test_samples_of_another_size_are_refused_and_brought_to_one_on_request(pictures, real_digits, tmp_path):
    large = real_digits.x[:60].repeat_interleave(2, 2).repeat_interleave(2, 3)
    folder = pictures("large", large)
    with pytest.raises(DataError, match=r"\(1, 16, 16\).*\(1, 8, 8\).*--size"):
        evaluate(folder, data="digits", features="pixels", out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()
    small = pictures("small", real_digits.x[:60])
    kept = {"data": str(small), "size": 12, "features": "pixels", "out": tmp_path / "out"}
    assert evaluate(folder, **kept, **QUICK).result.made.shape == (60, 1, 12, 12)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"metrics": ("fidd",)}, UnknownName, "did you mean 'fid'|fid"),
        ({"n": 1}, BadOption, "at least 2"),
        ({"steps": 5}, BadOption, "holds samples and no model"),
        ({"data": None}, DataError, "--data"),
        ({"metrics": ("accuracy",)}, BadOption, "label"),
        ({"features": "inception"}, DataError, "inception|weights"),
        ({"features": "nothing"}, BadOption, "nothing"),
    ],
)
def test_what_cannot_be_worked_out_is_refused_by_name(wrong, error, said, pictures, real_digits, tmp_path):
    given = {"data": "digits", "features": "pixels", "out": tmp_path / "out", **QUICK, **wrong}
    with pytest.raises(error, match=said):
        evaluate(pictures("made", real_digits.x[:40]), **given)


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        evaluate(tmp_path / "empty", data="digits", **QUICK)
    with pytest.raises(DataError, match="nothing at"):
        evaluate(tmp_path / "missing", data="digits", **QUICK)


def test_pictures_that_cannot_be_read_are_named_and_the_rest_is_judged(pictures, real_digits, tmp_path):
    folder = pictures("made", real_digits.x[:40])
    (folder / "broken.png").write_bytes(b"no picture")
    judged = evaluate(folder, data="digits", features="pixels", out=tmp_path / "out", **QUICK)
    assert len(judged.result.made) == 40
    assert any("broken.png" in note for note in judged.result.notes)


def test_fewer_samples_than_features_are_judged_and_what_it_costs_is_said(pictures, real_digits, tmp_path):
    judged = evaluate(
        pictures("made", real_digits.x[:40]), data="digits", features="pixels", metrics=("fid",), memorisation=False,
        out=tmp_path / "out",
    )  # fmt: skip
    assert any("40 samples" in note and "64 features" in note for note in judged.result.estimates["fid"].notes)


def test_labels_that_the_real_data_does_not_know_are_left_out_by_name(pictures, real_digits, tmp_path):
    folder = pictures("made", real_digits.x[:40], torch.arange(40) % 2 + 20)
    judged = evaluate(folder, data="digits", features="pixels", out=tmp_path / "out", **QUICK)
    assert any("'20'" in note for note in judged.result.notes)


def test_a_folder_that_holds_another_evaluation_is_refused(moons, tmp_path):
    evaluate(moons, n=20, out=tmp_path / "out", **QUICK)
    with pytest.raises(RunFolderError, match="steps"):
        evaluate(moons, n=20, steps=3, out=tmp_path / "out", **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not to be touched")
    with pytest.raises(RunFolderError, match="holds no evaluation"):
        evaluate(moons, n=20, out=tmp_path / "mine", **QUICK)


def test_data_that_is_not_finite_is_refused(moons, tmp_path):
    x = np.zeros((30, 2), dtype=np.float32)
    x[3] = np.nan
    np.save(tmp_path / "bad.npy", x)
    with pytest.raises(DataError, match="1 of 30"):
        evaluate(moons, data=str(tmp_path / "bad.npy"), n=20, out=tmp_path / "out", **QUICK)


def test_a_model_is_sampled_in_the_proportions_of_the_data(digits, real_digits):
    data = real_digits.take((real_digits.labels < 2).nonzero()[:100, 0])
    subject = ModelSubject(Model.load(digits), Request(), data)
    shares = torch.bincount(data.labels, minlength=10) / len(data)
    found = torch.bincount(subject.labels(1000), minlength=10) / 1000
    assert float((shares - found).abs().max()) < 0.005
    assert torch.equal(subject.labels(1000)[:70], subject.labels(70))
    with pytest.raises(BadOption, match="label"):
        ModelSubject(Model.load(digits), Request(label="eleven"), data)
