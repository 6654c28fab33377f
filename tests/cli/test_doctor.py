"""`unnoise doctor`."""

import json

import numpy as np

QUICK = ("training.steps=30", "training.sample_every=0", "training.validation_size=16", "training.ema=0.9")


def test_a_healthy_recipe_ends_with_0_and_one_line_about_what_is_well(unnoise):
    said = unnoise("doctor", "spiral", "--seconds", 600)
    assert said.code == 0
    tried, well = said.out.splitlines()
    assert tried.startswith("note     tried: ")
    assert well.startswith("all well average-length, ")


def test_what_was_not_tried_is_not_called_well(unnoise):
    said = unnoise("doctor", "spiral", "--no-try")
    assert said.code == 0
    unknown, well = said.out.splitlines()
    assert unknown == "unknown  gradients, one-batch"
    assert "one-batch" not in well


def test_a_fault_ends_with_1_and_comes_with_its_fix(unnoise):
    said = unnoise("doctor", "two-moons-labels", "objective.condition_dropout=0", "sampling.guidance=2", "--seconds", 0)
    assert said.code == 1
    first, cause, fix, blank, _, well = said.out.splitlines()
    assert first == "error    guidance: samples are guided by 2, and condition_dropout is 0"
    assert cause.startswith(" " * 9)
    assert fix == "         fix: objective.condition_dropout=0.1"
    assert blank == ""
    assert well.startswith("well     average-length, ")


def test_the_worst_stands_first(unnoise):
    said = unnoise(
        "doctor", "spiral", "training.steps=400", "training.lr=0.5", "sampling.guidance=2", "--seconds", 0, "--json"
    )
    assert said.code == 1
    found = json.loads(said.out)
    assert not found["healthy"]
    order = ["error", "warning", "hint"]
    severities = [finding["severity"] for finding in found["findings"]]
    assert severities == sorted(severities, key=order.index)
    assert {"learning-rate", "average-length", "guidance"} <= {finding["check"] for finding in found["findings"]}
    assert set(found["findings"][0]) == {"check", "severity", "seen", "cause", "fix"}


def test_a_run_is_looked_at_with_its_recipe(unnoise, tmp_path):
    folder = tmp_path / "run"
    assert unnoise("train", "spiral", *QUICK, "--out", folder).code == 0
    said = unnoise("doctor", folder, "--seconds", 0)
    assert said.code == 1
    assert "samples-noise: samples are white noise" in said.out
    assert f"--out {folder}-2" in said.out


def test_data_of_ones_own(unnoise, tmp_path):
    import numpy as np

    points = np.random.default_rng(0).standard_normal((300, 2))
    np.save(tmp_path / "points.npy", np.concatenate([points, points[:30]]))
    said = unnoise("doctor", "spiral", "--data", tmp_path / "points.npy", "--seconds", 0)
    assert said.code == 1
    assert said.out.startswith("warning  duplicates: 30 of 330 samples")


def test_what_cannot_be_looked_at(refused, tmp_path):
    assert "no run folder" in refused("doctor", tmp_path)
    assert "which has its options" in refused("doctor", tmp_path, "training.lr=1")
    assert "no recipe is called 'sprial'" in refused("doctor", "sprial")
    assert "--stream is about data of yours" in refused("doctor", "spiral", "--stream")
    assert "there is no such option" in refused("doctor", "spiral", "training.lrate=1")


def test_the_checks_can_be_listed(unnoise):
    said = unnoise("list", "checks")
    assert said.code == 0
    assert "signal-left" in said.out
    assert "Signal that is left at t = 1" in said.out


def test_an_autoencoder_is_a_patient_too(unnoise, tmp_path):
    sizes = "{width: 4, multipliers: [1, 2], blocks: 1, latent_channels: 1, attention: false}"
    (tmp_path / "ae.yaml").write_text(f"kind: autoencoder\ndata: digits\nautoencoder: {sizes}\n")
    said = unnoise("doctor", tmp_path / "ae.yaml", "training.lr=0.5", "training.steps=3000", "--seconds", 0)
    assert said.code == 1
    first, _, fix, *_ = said.out.splitlines()
    assert first == "error    learning-rate: the learning rate is 0.5, and adamw hardly ever bears more than 0.02"
    assert fix == "         fix: training.lr=0.001"


def test_a_run_on_a_relative_path_of_data_is_examined_from_anywhere(unnoise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savetxt("own.csv", rng.normal(size=(200, 2)), delimiter=",", header="x,y", comments="")
    assert unnoise("train", "spiral", "--data", "own.csv", "--out", "run", *QUICK).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = unnoise("doctor", tmp_path / "run", "--seconds", 0.5)
    assert "own.csv" not in said.out + said.err
    assert "duplicates" in said.out.splitlines()[-1]  # a check of the data, which was looked at
