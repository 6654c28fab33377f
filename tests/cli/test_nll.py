"""`unnoise nll`: its numbers, its file, and what it refuses."""

import json
import math
import os
import re
import signal

import numpy as np
import pytest
import torch

from unnoise.data.base import datasets
from unnoise.evaluation.bound import variational_bound
from unnoise.evaluation.likelihood import Moments, dequantised, log_likelihood
from unnoise.model import Model
from unnoise.recipes.nll import Evaluation, NLLSettings
from unnoise.recipes.nll_data import choose_data

QUICK = ("training.steps=4", "training.checkpoint_every=2", "training.sample_every=0", "training.validation_size=16")
TINY = (*QUICK, "network.width=8", "network.depth=1", "training.batch_size=8")
LOOSE = ("--rtol", 1e-2, "--atol", 1e-2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def spiral(unnoise, tmp_path):
    assert unnoise("train", "spiral", "--out", tmp_path / "spiral", "process=linear", *TINY).code == 0
    return tmp_path / "spiral"


@pytest.fixture
def digits(unnoise, tmp_path):
    said = unnoise(
        "train", "digits", "--out", tmp_path / "digits", *QUICK, "network.width=8", "network.multipliers=[1]",
        "network.attention=[]", "training.batch_size=8", "process={name: linear, num_steps: 12, beta_end: 0.6}",
        "denoiser.name=v", "training.validation_share=0.1", "objective.times=uniform", "objective.weighting=uniform",
    )  # fmt: skip
    assert said.code == 0, said
    return tmp_path / "digits"


def rows(path):
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    return header, {line["index"]: line for line in lines}


def test_points_are_as_likely_as_the_library_says(unnoise, spiral, tmp_path):
    said = unnoise("nll", spiral, "-n", 20, "--json", "--rtol", 1e-5, "--atol", 1e-5, "--batch-size", 7)
    assert said.code == 0, said
    summary, (header, found) = json.loads(said.out), rows(tmp_path / "nll.jsonl")
    model, data = Model.load(spiral), datasets.build("spiral").load()
    assert header["model"] == model.hash
    assert header["data"] == data.fingerprint()
    assert len(found) == 20
    assert sorted(found) != list(range(20))  # a choice, and not the first ones
    codec = model.blueprint.codec
    z = codec.encode(data.x[sorted(found)].double())
    everything = codec.encode(data.x.double())
    moments = Moments(everything.mean(0), torch.cov(everything.T, correction=0))
    exact = log_likelihood(model.denoiser, z, t_start=1 / 1000, prior=moments)
    nats = -exact.log_prob + math.log(codec.scale[0]) + math.log(codec.scale[1])
    torch.testing.assert_close(torch.tensor([found[i]["nll"] for i in sorted(found)]).double(), nats, rtol=0, atol=1e-4)
    assert summary["nll"]["nats"] == pytest.approx(float(nats.mean()), abs=1e-4)
    assert summary["nll"]["bits_per_dim"] == pytest.approx(summary["nll"]["nats"] / (2 * math.log(2)))
    assert summary["nll"]["low"] < summary["nll"]["nats"] < summary["nll"]["high"]
    assert (summary["n"], summary["of"], summary["divergence"]) == (20, len(data), "exact")
    assert summary["prior"] == "the data's mean and covariance, noised to t = 1"
    said = unnoise("nll", spiral, "-n", 20, "--prior", "start", "--json", "-o", tmp_path / "other.jsonl")
    sigma = float(model.denoiser.schedule.sigma(torch.ones(())))
    from_start = json.loads(said.out)
    assert from_start["prior"].startswith(f"N(0, {sigma:.6g}^2)")
    started = log_likelihood(model.denoiser, z, t_start=1 / 1000)
    expected = -started.log_prob.mean() + math.log(codec.scale[0]) + math.log(codec.scale[1])
    assert from_start["nll"]["nats"] == pytest.approx(float(expected), abs=1e-3)
    assert from_start["nll"]["nats"] != pytest.approx(summary["nll"]["nats"], abs=1e-6)


def test_pictures_are_whole_numbers_in_bits(unnoise, digits, tmp_path):
    said = unnoise("nll", digits, "-n", 6, "--bound", "--label", "own", "--json", *LOOSE)
    assert said.code == 0, said
    assert "180 samples that training has held out" in said.err
    summary, (_, found) = json.loads(said.out), rows(tmp_path / "nll.jsonl")
    model = Model.load(digits)
    data = choose_data(model).data
    assert len(data) == 180
    indices = sorted(found)
    x, cond = data.x[indices], {"label": data.labels[indices]}
    codec = model.blueprint.codec
    exact = log_likelihood(
        model.denoiser, codec.encode(dequantised(x, 0, indices)), cond=cond, probes=4, indices=indices, rtol=1e-2,
        atol=1e-2, t_start=1 / 12, prior=Evaluation(model, data, NLLSettings())._prior,
    )  # fmt: skip
    nats = -exact.log_prob + 64 * math.log(127.5)
    torch.testing.assert_close(torch.tensor([found[i]["nll"] for i in indices]).double(), nats, rtol=1e-6, atol=0)
    assert [found[i]["half_width"] for i in indices] == pytest.approx(exact.half_width.tolist())
    bound = variational_bound(model.denoiser, codec.encode(x), cond=cond, bin_width=2 / 255, indices=indices)
    assert [found[i]["bound"] for i in indices] == pytest.approx(bound.total.tolist(), rel=1e-5)
    assert summary["bound"]["bits_per_dim"] == pytest.approx(float(bound.total.mean()) / 64 / math.log(2), rel=1e-5)
    assert summary["bound_decoder"]["nats"] == pytest.approx(float(bound.decoder.mean()), rel=1e-5)
    terms = [*bound.levels.mean(0).tolist(), float(bound.prior.mean())]
    assert summary["bound_levels"] == pytest.approx(terms, rel=1e-5)
    assert [len(found[i]["bound_levels"]) for i in indices] == [11] * 6
    parts = [summary[name]["nats"] for name in ("bound_prior", "bound_steps", "bound_decoder")]
    assert sum(parts) == pytest.approx(summary["bound"]["nats"], rel=1e-6)


def test_the_terms_of_a_bound_are_told_in_the_units_of_the_data(unnoise, spiral, tmp_path):
    said = unnoise("nll", spiral, "-n", 3, "--bound", "--levels", 9, *LOOSE)
    assert said.code == 0, said
    assert re.search(r"^L_t by t +1-200: \S+, 201-400: \S+, 401-599: \S+, 600-799: \S+, 800-999: \S+$", said.out, re.M)
    file = tmp_path / "nll.jsonl"
    _, found = rows(file)
    for row in found.values():
        assert len(row["bound_levels"]) <= 8
        parts = sum(row["bound_levels"].values()) + row["bound_prior"] + row["bound_decoder"]
        assert row["bound"] == pytest.approx(parts, abs=1e-5)
    # A file of before, without the terms, is worked out again.
    file.write_text(re.sub(r', "bound_levels": {.*?}', "", file.read_text()))
    again = unnoise("nll", spiral, "-n", 3, "--bound", "--levels", 9, "--json", *LOOSE)
    summary = json.loads(again.out)
    assert rows(file)[1].keys() == found.keys()
    assert len(summary["bound_levels"]) == 1001
    assert sum(summary["bound_levels"]) == pytest.approx(summary["bound"]["nats"], abs=1e-4)


def test_a_table_for_people(unnoise, spiral):
    said = unnoise("nll", spiral, "-n", 5, *LOOSE)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[1].split()[0] == "nll"
    assert lines[2].split(maxsplit=1)[1] == "5 of 300, written to nll.jsonl"
    assert "trained on" in said.err


def test_the_same_command_goes_on_and_ends_where_an_unbroken_one_does(unnoise, spiral, tmp_path):
    assert unnoise("nll", spiral, "-n", 12, "-o", "whole.jsonl", *LOOSE).code == 0
    assert unnoise("nll", spiral, "-n", 5, *LOOSE).code == 0
    file = tmp_path / "nll.jsonl"
    file.write_text(file.read_text()[:-20])  # as if it was killed while it wrote
    said = unnoise("nll", spiral, "-n", 12, *LOOSE)
    assert said.code == 0, said
    assert "going on: 4 samples stand in" in said.err
    (header, found), (other, whole) = rows(file), rows(tmp_path / "whole.jsonl")
    assert header == other
    assert found.keys() == whole.keys()
    for i in whole:
        assert found[i]["nll"] == pytest.approx(whole[i]["nll"], abs=1e-6)
    before = file.read_bytes()
    assert unnoise("nll", spiral, "-n", 12, *LOOSE).code == 0
    assert file.read_bytes() == before


def test_a_stop_loses_no_batch_that_is_done(spiral, tmp_path):
    model = Model.load(spiral)
    data = choose_data(model).data
    settings, out = NLLSettings(rtol=1e-2, atol=1e-2), tmp_path / "x.jsonl"
    evaluation, told = Evaluation(model, data, settings, out), []
    stop = lambda: len(told) > 0 and told[-1][0] == 6 and told[-1][1] > 3
    assert not evaluation.run(10, 3, lambda done, calls: told.append((done, calls)), stop)
    assert len(rows(out)[1]) == 6
    again = Evaluation(model, data, settings, out)
    assert again.run(10, 3)
    assert len(rows(out)[1]) == 10


def test_ctrl_c_stops_with_the_code_of_the_signal_and_says_how_to_go_on(unnoise, spiral, monkeypatch):
    from unnoise.recipes import nll

    batch = nll.Evaluation._batch

    def interrupted(self, indices, denoiser):
        if self.rows:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, indices, denoiser)

    monkeypatch.setattr(nll.Evaluation, "_batch", interrupted)
    said = unnoise("nll", spiral, "-n", 6, "--batch-size", 2, *LOOSE)
    assert said.code == 130
    assert "2 samples stand in nll.jsonl; the same command goes on" in said.err


def test_other_settings_models_and_files_are_refused(unnoise, refused, spiral, tmp_path):
    assert unnoise("nll", spiral, "-n", 3, *LOOSE).code == 0
    before = (tmp_path / "nll.jsonl").read_bytes()
    assert "rtol 0.01, now 0.001" in refused("nll", spiral, "-n", 3, "--rtol", 1e-3, "--atol", 1e-2)
    assert "seed 0, now 1" in refused("nll", spiral, "-n", 3, "--seed", 1, *LOOSE)
    assert "data " in refused("nll", spiral, "--data", "moons", "-n", 3, *LOOSE)
    assert (tmp_path / "nll.jsonl").read_bytes() == before
    (tmp_path / "notes.jsonl").write_text("dear diary\n")
    assert "holds no likelihoods" in refused("nll", spiral, "-n", 3, "-o", "notes.jsonl", *LOOSE)
    assert (tmp_path / "notes.jsonl").read_text() == "dear diary\n"


def test_what_cannot_be_is_one_line(unnoise, refused, spiral, tmp_path):
    assert "samples of shape (1, 8, 8), and the model makes points samples of shape (2,)" in refused(
        "nll", spiral, "--data", "digits"
    )
    assert "there is nothing at" in refused("nll", spiral, "--data", tmp_path / "nowhere")
    assert "the data has no labels of its own" in refused("nll", spiral, "--label", "own")
    assert "knows no label" in refused("nll", spiral, "--label", "seven")
    assert "must end in .jsonl" in refused("nll", spiral, "-o", "x.png")
    assert "n: must be at least 1" in refused("nll", spiral, "-n", 0)
    assert "batch_size" in refused("nll", spiral, "--batch-size", 0)
    assert "probes" in refused("nll", spiral, "--probes", -2)
    assert "rtol" in refused("nll", spiral, "--rtol", 0)
    assert "add --bound" in refused("nll", spiral, "--levels", 5)
    assert "leave it out with --unconditional" in refused("nll", spiral, "--unconditional", "--label", "own")
    assert "levels: the chain has 1000, got 2000" in refused(
        "nll", spiral, "-n", 2, "--bound", "--levels", 2000, *LOOSE
    )
    moved = (spiral / "model").rename(tmp_path / "alone")
    assert "give some with --data" in refused("nll", moved)
    assert unnoise("nll", moved, "--data", "moons", "-n", 2, "-o", "alone.jsonl", *LOOSE).code == 0
    assert not (tmp_path / "nll.jsonl").exists()


def test_a_tolerance_that_cannot_be_met_ends_with_what_was_reached(refused, spiral, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.nll.MOST_CALLS", 200)
    said = refused("nll", spiral, "-n", 2, "--rtol", 1e-12, "--atol", 1e-12)
    assert "rtol=1e-12, atol=1e-12 was not reached" in said
    assert "led only to t = 0." in said


def test_the_bound_needs_a_chain(unnoise, refused, tmp_path):
    assert unnoise("train", "spiral", "--out", tmp_path / "flow", "process=flow", "denoiser.name=v", *TINY).code == 0
    assert "FlowSchedule, has none: leave out --bound" in refused("nll", tmp_path / "flow", "--bound")


def test_data_of_ones_own_is_read_as_the_run_reads_its_own(unnoise, spiral, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((1, 2), dtype=np.float32))
    said = unnoise("nll", spiral, "--data", tmp_path / "one.npy", "-o", "one.jsonl", *LOOSE)
    assert said.code == 0, said
    assert said.out.count("unknown") == 2  # one sample has no interval
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32))
    said = unnoise("nll", spiral, "--data", tmp_path / "mine.npy", "--json", *LOOSE)
    assert said.code == 0, said
    assert json.loads(said.out)["n"] == 9
