"""Runs in processes of their own: what stands in their folders is read, and nothing wrong is begun."""

import json
import os
import subprocess
import sys
import time

import pytest

from unnoise.errors import BadOption, DataError, RunFolderError, UnknownName
from unnoise.recipes.background import BackgroundRuns

RECIPE = "training: {steps: 100, batch_size: 32}\n"


@pytest.fixture
def runs(tmp_path):
    """A folder with one run, made elsewhere, that stands at step 40 of 100."""
    folder = tmp_path / "runs"
    place = folder / "old"
    (place / "samples").mkdir(parents=True)
    (place / "samples/000000040.png").write_bytes(b"png")
    (place / "recipe.yaml").write_text(RECIPE)
    lines = [{"step": k, "loss": 2.0, "samples_per_second": 320.0} for k in range(5, 45, 5)]
    lines.insert(
        4,
        {
            "step": 20,
            "validation_loss": 1.5,
            "bayes_floor": 0.5,
            "by_time": {"t": [0.5], "loss": [1.5], "floor": [0.5]},
        },
    )
    lines.append({"step": 40, "kid": 0.3, "kid_low": 0.2, "kid_high": 0.4, "best": True})
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return BackgroundRuns(folder)


def note(runs, **values):
    (runs.folder / ".background").mkdir(exist_ok=True)
    begun = {"recipe": "spiral", "overrides": [], "data": "", "process": 0, "stopped": False, **values}
    (runs.folder / ".background/old.json").write_text(json.dumps(begun))


def test_a_run_that_stands_there_is_read(runs):
    assert runs.names() == ["old"]
    facts = runs.facts("old")
    assert (facts["state"], facts["step"], facts["steps"], facts["eta"]) == ("paused", 40, 100, None)
    assert facts["pictures"] == ["000000040.png"]
    assert facts["begun"] is None
    curves = runs.curves("old")
    assert curves["step"] == list(range(5, 45, 5))
    assert curves["smoothed"] == pytest.approx([2.0] * 8)
    assert curves["validated"] == {"step": [20], "loss": [1.5]}
    assert curves["floor"] == 0.5
    assert curves["measured"] == {"kid": {"step": [40], "value": [0.3]}}
    assert runs.picture("old", "000000040.png").read_bytes() == b"png"


def test_a_long_curve_is_thinned_and_keeps_its_end(runs):
    lines = [{"step": k, "loss": float(k)} for k in range(1, 5001)]
    (runs.folder / "old/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = runs.curves("old")
    assert len(curves["step"]) <= 640
    assert (curves["step"][0], curves["step"][-1]) == (1, 5000)
    assert curves["loss"] == [float(step) for step in curves["step"]]


def test_a_process_of_an_earlier_studio_is_known_again(runs):
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)", "train", str(runs.folder / "old")]
    )
    try:
        note(runs, process=sleeper.pid)
        until = time.monotonic() + 60  # for a moment after it begins, a process has no words yet
        while runs.facts("old")["state"] != "running" and time.monotonic() < until:
            time.sleep(0.01)
        assert runs.facts("old")["state"] == "running"
        assert runs.facts("old")["eta"] == pytest.approx(60 * 32 / 320)
        with pytest.raises(RunFolderError, match="is at work already"):
            runs.resume("old")
        runs.end("old", stopped=True)
        sleeper.wait(60)
        assert runs.facts("old")["state"] == "stopped"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_another_process_of_the_same_number_is_left_alone(runs):
    note(runs, process=os.getpid())
    assert runs.facts("old")["state"] == "paused"
    runs.end("old")  # else this test would have ended here


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (lambda runs: runs.begin("old", "spiral"), BadOption, "there is a run old already"),
        (lambda runs: runs.begin("a/b", "spiral"), BadOption, "no name for a run"),
        (lambda runs: runs.begin("new", "spirl"), UnknownName, "did you mean 'spiral'"),
        (lambda runs: runs.begin("new", "spiral", ["training.steps=0"]), BadOption, "at least 1"),
        (lambda runs: runs.begin("new", "images", data="nowhere"), DataError, "there is nothing at nowhere"),
        (lambda runs: runs.facts("new"), UnknownName, "no run is called 'new'"),
        (lambda runs: runs.resume("old"), RunFolderError, "was not begun here"),
        (lambda runs: runs.picture("old", "../recipe.yaml"), UnknownName, "no picture"),
    ],
)
def test_what_cannot_be_is_one_line(runs, act, error, told):
    with pytest.raises(error, match=told):
        act(runs)
    assert runs.names() == ["old"]
