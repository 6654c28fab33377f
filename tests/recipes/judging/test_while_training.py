"""A run that is judged on its way."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import BadOption, DataError
from unnoise.model import Model
from unnoise.recipes.judging.run import evaluate
from unnoise.recipes.judging.while_training import Evaluated
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

SHORT = (
    "training.steps=40", "training.checkpoint_every=10", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=10", "network.width=16", "training.batch_size=32", "training.lr=3e-3", "sampling.steps=4",
    "evaluation.every=500", "evaluation.n=100",
)  # fmt: skip


def run(folder, overrides=(), name="two-moons-labels", steps=None):
    made = Run(load_recipe(name, [*SHORT, *overrides]), str(folder))
    asked = iter(range(1, 10**9))
    events = list(made.events(lambda: steps is not None and next(asked) >= steps))
    return made, [event for event in events if isinstance(event, Evaluated)]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


OF_THE_MACHINE = {"samples_per_second", "peak_memory_gb"}  # no two runs have them alike


def of_the_run(folder):
    return [{k: v for k, v in line.items() if k not in OF_THE_MACHINE} for line in lines(folder)]


def test_the_averaged_model_is_measured_every_so_many_samples_and_at_the_end(tmp_path):
    made, events = run(tmp_path / "run")
    assert [event.step for event in events] == [16, 32, 40]  # 512, 1024 and the last of 1280 samples
    written = [line for line in lines(tmp_path / "run") if "energy" in line]
    assert [line["step"] for line in written] == [16, 32, 40]
    assert all(line["energy_low"] <= line["energy"] <= line["energy_high"] for line in written)
    alone = evaluate(made.model(), n=100, metrics=("energy",), memorisation=False, out=tmp_path / "alone")
    assert written[-1]["energy"] == alone.result.estimates["energy"].value


def test_a_run_that_was_stopped_ends_with_the_same_metrics(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "parts", steps=13)
    run(tmp_path / "parts", steps=20)
    run(tmp_path / "parts")
    assert of_the_run(tmp_path / "parts") == of_the_run(tmp_path / "whole")
    best = [Model.load(tmp_path / name / "best").hash for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_the_best_model_is_kept(tmp_path):
    _, events = run(tmp_path / "run", ["training.steps=60", "training.lr=3e-2", "training.decay=constant"])
    values = [event.estimates["energy"].value for event in events]
    best = Model.load(tmp_path / "run" / "best")
    assert best.trained["evaluation"]["energy"] == min(values)
    assert best.trained["steps"] == events[int(np.argmin(values))].step
    assert [event.best for event in events] == [value == min(values[: i + 1]) for i, value in enumerate(values)]


def test_the_numbers_of_a_run_are_drawn_when_it_ends(tmp_path):
    run(tmp_path / "run")
    with Image.open(tmp_path / "run" / "evaluation.png") as picture:
        assert picture.width > 400


def test_nothing_is_measured_where_nobody_asked(tmp_path):
    _, events = run(tmp_path / "run", ["evaluation.every=0"])
    assert not events
    assert not (tmp_path / "run" / "best").exists()
    assert not (tmp_path / "run" / "evaluation.png").exists()


def test_a_model_that_learns_a_few_points_by_heart_is_reported(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "few.npy", rng.normal(size=(12, 2)).astype(np.float32) * 3)
    overrides = (
        f"data={{name: array, path: {tmp_path / 'few.npy'}}}", "training.steps=1500", "training.checkpoint_every=1500",
        "network.width=128", "training.batch_size=64", "training.validate_every=500", "training.validation_size=512",
        "evaluation.every=96000", "evaluation.n=200", "sampling.steps=20", "sampling.guidance=1", "training.ema=0.99",
    )  # fmt: skip
    _, events = run(tmp_path / "run", overrides, name="spiral")
    assert events[-1].copies.verdict == "copies"
    assert any("copies its training data" in warning for warning in events[-1].warnings)
    assert any("copies" in warning for line in lines(tmp_path / "run") for warning in line.get("warnings", []))


def test_a_loss_near_the_floor_and_a_held_out_loss_that_rises_are_reported(tmp_path):
    made, _ = run(tmp_path / "run", ["evaluation.every=0"])
    watcher = made.watcher
    for loss, floor, said in ((1.0, 0.5, False), (0.52, 0.5, True), (0.53, 0.5, False)):
        watcher.saw(loss, floor)
        assert bool(watcher._warnings(None)) == said
    held, _ = run(tmp_path / "held", ["evaluation.every=0", "training.validation_share=0.2"])
    watcher = held.watcher
    for loss, said in ((0.50, False), (0.40, False), (0.405, False), (0.45, True)):
        watcher.saw(loss, 0.39)
        told = watcher._warnings(None)
        assert bool(told) == said
    assert "0.4000 to 0.4500" in told[0]


def test_a_run_that_was_begun_before_plans_existed_goes_on(tmp_path):
    plain = ["evaluation.every=0", "evaluation.n=500"]
    run(tmp_path / "run", plain, steps=12)
    recipe = tmp_path / "run" / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text[: text.index("evaluation:")])
    made, _ = run(tmp_path / "run", plain)
    assert made.finished


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("evaluation.metrics=[fidd]", Exception, "fidd"),
        ("evaluation.best_by=kid", BadOption, "not measured"),
        ("evaluation.features=inception", DataError, "cannot look at"),
        ("evaluation.n=1", BadOption, "at least"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_before_training(wrong, error, said, tmp_path):
    with pytest.raises(error, match=said):
        run(tmp_path / "run", [wrong])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_drawn_sample_is_the_same_at_every_evaluation_of_equal_weights(tmp_path):
    made, _ = run(tmp_path / "run", ["evaluation.every=0"])
    made.watcher.plan = load_recipe("two-moons-labels", [*SHORT]).evaluation
    first, second = (made.watcher.measure(made.model(), 1) for _ in range(2))
    assert first.estimates == second.estimates
    assert torch.isfinite(torch.tensor(first.estimates["energy"].value))
