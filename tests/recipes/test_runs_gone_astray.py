"""Runs whose steps went too far: what the doctor and training say of them, and what the fix carries."""

import json
import shlex
import shutil

import pytest

from unnoise.recipes.diagnosis.examine import examine_run
from unnoise.recipes.metrics import exploded, read_metrics
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

SMALL = ("training.steps=200", "training.ema=0.9", "training.sample_every=0", "training.log_every=10",
         "training.validate_every=50", "training.validation_size=128", "training.checkpoint_every=100")  # fmt: skip
WILD = ("training.lr=10", "training.clip=0")


def ran(folder, *options):
    run = Run(load_recipe("spiral", [*SMALL, *options]), folder)
    for _ in run.events():
        pass
    return run


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """A run whose loss exploded, and is a number."""
    return ran(tmp_path_factory.mktemp("wild") / "run", *WILD)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run that learned."""
    return ran(tmp_path_factory.mktemp("calm") / "run")


def found_in(folder):
    return dict(examine_run(folder, 600).findings)


def test_a_loss_that_exploded_is_found_with_where_it_began_and_its_fix_heals_it(wild, tmp_path):
    found, folder = found_in(wild.folder), wild.folder
    lines = read_metrics(folder / "metrics.jsonl")
    told = [line["validation_loss"] for line in lines if "validation_loss" in line]
    (first,) = [line["loss"] for line in lines if line["step"] == 10]
    finding = found["exploded"]
    assert finding.severity == "error"
    assert finding.seen == (
        f"the validation loss began at {told[0]:.4g} and is {told[-1]:.4g} at step 200; the first loss so far up is {first:.3g} "
        "at step 10"
    )
    assert finding.cause == "the steps overshoot: the learning rate of 10 is too high, and no gradient is clipped"
    calmer = ["training.lr=0.001", "training.warmup=100", "training.clip=1"]
    assert finding.fix == shlex.join(["unnoise", "train", f"{folder}/recipe.yaml", *calmer, "--out", f"{folder}-2"])
    assert "loss-flat" not in found
    healed = ran(tmp_path / "healed", *WILD, *calmer)
    assert not {"exploded", "sampling-fails"} & set(found_in(healed.folder))


def test_training_ends_with_a_note_on_it(wild, calm):
    lines = read_metrics(wild.folder / "metrics.jsonl")
    first, last = (line["validation_loss"] for line in exploded(lines))
    assert wild.late_notes() == [
        f"the validation loss is {last:.4g}, far above the {first:.4g} that it began with: lower training.lr (now 10) and use "
        "another --out, or ask `unnoise doctor`"
    ]
    assert calm.late_notes() == []


def course(validations, losses):
    steps = [{"step": 10 * i, "loss": loss} for i, loss in enumerate(losses, 1)]
    return [*steps, *({"step": 100 * i, "validation_loss": loss} for i, loss in enumerate(validations))]


def test_only_a_loss_that_stands_far_above_its_beginning_has_exploded():
    assert exploded(course([1.0, 0.5, 3.5], [1.0, 4.0, 3.4, 3.3])) is not None
    assert exploded(course([1.0, 0.5, 2.9], [1.0, 4.0, 2.9, 2.9])) is None
    assert (
        exploded(course([1.0, 0.1, 3.5], [1.0, 0.1, 0.01])) is None
    )  # learned by heart: held-out data alone is far up
    assert exploded(course([1.0, 9.0, 0.5], [1.0, 9.0, 0.5])) is None  # it came back
    assert exploded(course([1.0, float("inf")], [1.0])) is None
    assert exploded(course([5.0], [])) is None


def test_after_going_back_samples_of_noise_are_no_reason_to_go_on_at_the_same_rate(calm, tmp_path):
    short = ran(tmp_path / "short", "training.steps=10", "training.lr=3e-4").folder
    folder = shutil.copytree(calm.folder, tmp_path / "run")
    shutil.rmtree(folder / "model")
    shutil.copytree(short / "model", folder / "model")  # which has learned next to nothing
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["step"] <= 100]
    rewrite(folder, lines)
    on = f"unnoise train {folder}/recipe.yaml --out {folder}"
    assert found_in(folder)["samples-noise"].fix == on
    assert found_in(folder)["unfinished"].fix == on
    rewrite(folder, [*lines, {"step": 100, "went_back": "the loss is nan at step 120: went back to step 100"}])
    found = found_in(folder)
    calmer = f"unnoise train {folder}/recipe.yaml training.lr=0.001 training.warmup=100 --out {folder}-2"
    assert found["samples-noise"].fix == calmer
    assert found["samples-noise"].cause == "its steps went astray, as the log of the run says"
    assert found["diverged"].fix == calmer
    assert found["unfinished"].fix == ""


def rewrite(folder, lines):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
