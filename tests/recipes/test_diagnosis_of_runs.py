"""Runs that went wrong: each fault is seeded in a real run's folder, and exactly the check that is about it speaks."""

import contextlib
import io
import json
import shutil
import tarfile
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import RunFolderError, TrainingDiverged
from unnoise.model import Model
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.diagnosis import course
from unnoise.recipes.diagnosis.base import checks
from unnoise.recipes.diagnosis.examine import examine_run
from unnoise.recipes.diagnosis.runs import DiffusionRunPatient
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.train import train
from unnoise.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint

RUN_CHECKS = {name for name, cls in checks.items() if issubclass(DiffusionRunPatient, cls.needs)}

POINTS = {
    "data": {"name": "moons", "num_points": 500, "noise": 0.06},
    "process": {"name": "variance_exploding", "sigma_min": 0.01, "sigma_max": 20.0},
    "denoiser": {"name": "edm"},
    "network": {"name": "mlp", "width": 48, "depth": 2},
    "objective": {"name": "mse", "times": {"name": "log_uniform", "low": 0.01, "high": 20.0}, "condition_dropout": 0.1},
    "training": {"steps": 600, "batch_size": 128, "lr": 5e-3, "ema": 0.99, "warmup": 20, "validate_every": 100,
                 "sample_every": 0, "checkpoint_every": 300, "log_every": 10},
    "tracking": {"trackers": []},
}  # fmt: skip


def pictures(n, seed=0):
    """Bright and dark discs at random places, uint8, (n, 8, 8)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8]
    cx, cy, bright = rng.uniform(2, 5, n), rng.uniform(2, 5, n), rng.integers(0, 2, n)
    inside = np.hypot(x - cx[:, None, None], y - cy[:, None, None]) < 2
    discs = np.where(inside, np.where(bright, 245, 10)[:, None, None], 128)
    return (discs + rng.integers(-8, 9, discs.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A healthy run on points."""
    folder = tmp_path_factory.mktemp("points") / "run"
    train(load_recipe(POINTS), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A healthy run on pictures, whose network predicts the clean picture, and its data."""
    place = tmp_path_factory.mktemp("pictures")
    np.save(place / "data.npy", pictures(400))
    values = {**POINTS, "data": {"name": "array", "path": str(place / "data.npy")}, "denoiser": {"name": "x0"},
              "network": {"name": "mlp", "width": 96, "depth": 2, "fourier": 0}}  # fmt: skip
    train(load_recipe(values), place / "run", progress=False)
    return place / "run"


@pytest.fixture
def copy_of(tmp_path):
    """A function that copies a run, for a fault."""

    def copied(folder):
        return shutil.copytree(folder, tmp_path / "run")

    return copied


LONG = 600
"""Seconds that drawing samples may take: all are drawn, however slow the machine is."""


def found_in(folder, seconds=LONG):
    """What the checks of runs find, by name."""
    return {name: finding for name, finding in examine_run(folder, seconds).findings if name in RUN_CHECKS}


def change(folder, edit):
    """Changes the weights of a run's model."""
    model = Model.load(folder / "model")
    with torch.no_grad():
        edit(preconditioned(model.denoiser).network)
    model.save(folder / "model")


def rewrite(folder, edit):
    """Changes the metrics of a run."""
    lines = edit(read_metrics(folder / "metrics.jsonl"))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def constant(network, picture):
    """Makes a network say the same whatever it sees."""
    network.leave.weight.zero_()
    network.leave.bias.copy_(picture)


def test_healthy_runs_are_well(points, drawn):
    for folder in (points, drawn):
        found = examine_run(folder, LONG)
        assert {name for name in found.named() if name in RUN_CHECKS} == set()
        assert found.healthy
        assert found.notes == (f"drawn: {2048 if folder == points else 256} samples",)


def test_weights_that_are_nan_are_named(points, copy_of):
    folder = copy_of(points)
    change(folder, lambda network: network.enter.bias.fill_(float("nan")))
    found = found_in(folder)
    assert set(found) == {"weights"}
    assert "enter.bias" in found["weights"].seen


def test_weights_that_were_never_trained_draw_noise(points, copy_of):
    folder = copy_of(points)
    model = Model.load(folder / "model")
    Model(model.blueprint, model.blueprint.build(7), model.sampling, model.trained).save(folder / "model")
    found = found_in(folder)
    assert set(found) == {"samples-noise"}
    assert "samples are white noise" in found["samples-noise"].seen


def test_grey_samples_are_found(drawn, copy_of):
    folder = copy_of(drawn)
    change(folder, lambda network: constant(network, torch.zeros(64)))
    found = found_in(folder)
    assert set(found) == {"samples-grey"}
    assert "contrast of 0," in found["samples-grey"].seen


def test_samples_that_are_all_alike_are_found(drawn, copy_of):
    folder = copy_of(drawn)
    picture = torch.from_numpy(pictures(1)).flatten().float() / 127.5 - 1
    change(folder, lambda network: constant(network, picture))
    assert set(found_in(folder)) == {"samples-alike"}


def test_samples_that_are_too_bright_are_found(drawn, copy_of):
    folder = copy_of(drawn)
    change(folder, lambda network: network.leave.bias.add_(0.25))
    found = found_in(folder)
    assert set(found) == {"samples-bright"}


def test_samples_that_are_cut_off_are_found(drawn, copy_of):
    folder = copy_of(drawn)
    change(folder, lambda network: (network.leave.bias.mul_(6), network.leave.weight.mul_(6)))
    found = found_in(folder)
    assert "samples-saturated" in found
    assert set(found) <= {"samples-saturated", "samples-noise"}


def test_sampling_that_runs_away_is_found(points, copy_of):
    folder = copy_of(points)
    change(folder, lambda network: network.leave.weight.fill_(3e38))
    assert set(found_in(folder)) == {"sampling-fails"}


def test_a_model_that_copies_is_found(tmp_path):
    np.save(tmp_path / "data.npy", pictures(24))
    values = {**POINTS, "data": {"name": "array", "path": str(tmp_path / "data.npy")}, "denoiser": {"name": "x0"},
              "network": {"name": "mlp", "width": 128, "depth": 2, "fourier": 0},
              "training": {**POINTS["training"], "steps": 2000, "batch_size": 48}}  # fmt: skip
    train(load_recipe(values), tmp_path / "run", progress=False)
    found = examine_run(tmp_path / "run", LONG)
    assert {name for name in found.named() if name in RUN_CHECKS} == {"copies"}
    assert "few-samples" in found.named("warning")  # the cause
    assert "24 samples were seen 4,000 times each" in dict(found.findings)["copies"].cause


def test_a_run_that_diverged_is_found(tmp_path):
    wild = {**POINTS["training"], "optimizer": "sgd", "lr": 10.0, "clip": 0.0, "warmup": 0}
    with pytest.raises(TrainingDiverged):
        train(load_recipe({**POINTS, "training": wild}), tmp_path / "run", progress=False)
    found = found_in(tmp_path / "run")
    assert "diverged" in found
    assert "went back to step 0 with half the learning rate, and the run ended" in found["diverged"].seen
    assert set(found) <= {"diverged", "model", "unfinished"}


def test_a_run_that_went_back_and_got_through_is_a_warning(points, copy_of):
    folder = copy_of(points)
    rewrite(
        folder, lambda lines: [*lines, {"step": 300, "went_back": "the loss is nan at step 320: went back to step 300"}]
    )
    assert {name: finding.severity for name, finding in found_in(folder).items()} == {"diverged": "warning"}


def test_a_loss_that_never_fell_is_found(tmp_path):
    slow = {**POINTS["training"], "lr": 1e-9, "steps": 60}
    train(load_recipe({**POINTS, "training": slow}), tmp_path / "run", progress=False)
    found = examine_run(tmp_path / "run", LONG)
    assert "loss-flat" in found.named("error")
    assert "learning-rate" in found.named("warning")  # the cause
    assert {name for name in found.named() if name in RUN_CHECKS} <= {"loss-flat", "samples-noise", "noise-scale"}


def test_a_run_that_starts_from_a_model_need_not_learn_anything(points, tmp_path):
    more = {**POINTS["training"], "steps": 200, "lr": 1e-4}
    for i, start in enumerate([{"model": str(points)}, {"model": str(points), "lora": {"rank": 2}}]):
        train(load_recipe({**POINTS, "start": start, "training": more}), tmp_path / f"run-{i}", progress=False)
        found = examine_run(tmp_path / f"run-{i}", LONG)
        assert {name for name in found.named() if name in RUN_CHECKS} == set()
        assert set(found.unknown) == {"average-lag", "gradients", "loss-flat", "one-batch"}


def test_a_loss_below_the_floor_is_found(points, copy_of):
    folder = copy_of(points)

    def below(lines):
        last = [line for line in lines if "validation_loss" in line][-1]
        last["validation_loss"] = 0.5 * last["bayes_floor"]
        return lines

    rewrite(folder, below)
    assert set(found_in(folder)) == {"below-floor"}


def test_a_held_out_loss_that_rises_is_found(tmp_path):
    values = {**POINTS, "data": {"name": "moons", "num_points": 60, "noise": 0.2},
              "network": {"name": "mlp", "width": 128, "depth": 3},
              "training": {**POINTS["training"], "steps": 1500, "batch_size": 30, "validation_share": 0.5}}  # fmt: skip
    train(load_recipe(values), tmp_path / "run", progress=False)
    found = found_in(tmp_path / "run")
    assert "overfitting" in found
    assert set(found) <= {"overfitting", "copies", "always-clipped"}


def spiked(lines):
    logged = [line for line in lines if "gradient_norm" in line]
    for line in logged[10:40:10]:
        line["loss"] *= 50
    return lines


def cut(lines):
    return [{**line, "gradient_norm": 7.0} if "gradient_norm" in line else line for line in lines]


def noisy(lines):
    return [{**line, "gradient_noise_scale": 1e6} if "gradient_norm" in line else line for line in lines]


def stuck(lines):
    told = [line for line in lines if "by_time" in line]
    k = len(told[0]["by_time"]["t"]) // 2
    told[-1]["by_time"]["loss"][k] = told[0]["by_time"]["loss"][k]
    return lines


def waiting(lines):
    told = {"waiting_for_data": 0.4, "samples_per_second": 1000.0}
    return [{**line, **told} if "gradient_norm" in line else line for line in lines]


def stopped(lines):
    return [line for line in lines if line["step"] <= 300]


COURSES = {
    "spikes": (spiked, "warning", "3 of 60 logged losses"),
    "always-clipped": (cut, "hint", "norm is about 7"),
    "noise-scale": (noisy, "hint", "1,000,000 samples"),
    "noise-levels": (stuck, "hint", "the loss is where it began"),
    "waiting": (waiting, "warning", "the steps waited for their data in 40% of the time (machine.workers=auto)"),
    "unfinished": (stopped, "hint", "300 of 600 steps"),
}


@pytest.mark.parametrize("check", COURSES)
def test_the_course_of_a_run_is_read(points, copy_of, check):
    edit, severity, told = COURSES[check]
    folder = copy_of(points)
    rewrite(folder, edit)
    found = found_in(folder)
    assert {name: finding.severity for name, finding in found.items()} == {check: severity}
    assert told in found[check].seen


def test_waiting_is_no_matter_where_it_is_a_part_of_almost_nothing(points, copy_of):
    folder = copy_of(points)
    rewrite(folder, lambda lines: [{**line, "samples_per_second": 1e6} for line in waiting(lines)])
    assert "waiting" not in found_in(folder)
    assert "waiting" in examine_run(folder, LONG).well


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Gives a run whose data is read as it is needed, shards or loose files; it waited for them. Each is made once."""

    @cache
    def made(packed):
        place = tmp_path_factory.mktemp("stored")
        data = place / "data"
        data.mkdir()
        with tarfile.open(data / "0.tar", "w") if packed else contextlib.nullcontext() as tar:
            for i, pixels in enumerate(pictures(60)):
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                member = tarfile.TarInfo(f"{i:02}.png")
                member.size = content.tell()
                if packed:
                    tar.addfile(member, io.BytesIO(content.getvalue()))
                else:
                    (data / member.name).write_bytes(content.getvalue())
        training = {**POINTS["training"], "steps": 20, "batch_size": 20, "log_every": 5, "validation_size": 16}
        values = {**POINTS, "data": {"name": "shards", "path": str(data), "size": 8}, "training": training}
        train(load_recipe(values), place / "run", progress=False)
        rewrite(place / "run", waiting)
        return place / "run"

    return made


def with_workers(folder, workers):
    """The same run, as if it had been trained with so many."""
    recipe = folder / "recipe.yaml"
    asked = recipe.read_text().replace("workers: auto", f"workers: {workers}")
    assert f"  workers: {workers}\n" in asked
    recipe.write_text(asked)
    return folder


@pytest.mark.parametrize(
    ("workers", "there", "more"), [(0, 8, 4), (0, 2, 1), (3, 8, 6), (4, 6, 5), ("auto", 16, 8), ("auto", 6, 5)]
)
def test_more_workers_are_advised_while_there_are_processors(stored, copy_of, monkeypatch, workers, there, more):
    monkeypatch.setattr(course, "processors", lambda: there)
    folder = with_workers(copy_of(stored(packed=True)), workers)
    finding = found_in(folder, seconds=0)["waiting"]
    assert f"(machine.workers={workers})" in finding.seen
    assert "to read and decode it takes longer than to learn from it" in finding.cause
    again = f"unnoise train {folder / 'recipe.yaml'} machine.workers={more} --out {folder}-2"
    assert finding.fix == again
    rewrite(folder, lambda lines: [line for line in lines if line["step"] <= 10])
    assert found_in(folder, seconds=0)["waiting"].fix == again.removesuffix("-2")  # the same run goes on with them


@pytest.mark.parametrize("packed", [False, True])
def test_without_processors_for_more_workers_loose_files_are_to_be_packed(stored, copy_of, monkeypatch, packed):
    monkeypatch.setattr(course, "processors", lambda: 1)
    folder = with_workers(copy_of(stored(packed)), 1)
    finding = found_in(folder, seconds=0)["waiting"]
    assert "no processor is left for more workers" in finding.cause
    place = stored(packed).with_name("data")
    command = f"unnoise pack {place} -o {place}-shards && unnoise train {folder / 'recipe.yaml'} --data {place}-shards"
    assert finding.fix == ("" if packed else f"{command} --out {folder}-2")


def test_a_damaged_checkpoint_is_found(points, copy_of):
    folder = copy_of(points)
    newest, older = checkpoints(folder / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    found = found_in(folder)
    assert set(found) == {"checkpoint"}
    assert found["checkpoint"].severity == "warning"
    assert found["checkpoint"].fix == f"rm -r {newest}"
    older.write_bytes(b"")
    assert found_in(folder)["checkpoint"].severity == "error"


@pytest.mark.parametrize("alone", [False, True])
def test_a_checkpoint_of_another_network_is_found_and_nothing_else_is_upset(points, copy_of, tmp_path, alone):
    small = {**POINTS["training"], "steps": 700, "checkpoint_every": 700, "validation_size": 16}
    train(load_recipe({**POINTS, "network": {"name": "mlp", "width": 8, "depth": 2}, "training": small}), tmp_path / "small",
          progress=False)  # fmt: skip
    folder = copy_of(points)
    for path in checkpoints(folder / "checkpoints") if alone else ():
        path.unlink()
    (other,) = checkpoints(tmp_path / "small" / "checkpoints")
    shutil.copy(other, folder / "checkpoints")
    found = found_in(folder)
    assert set(found) == {"checkpoint"}
    told = "the newest checkpoint, 000000700.safetensors, holds the weights of another network (it differs in blocks.0.enter.bias)"
    assert (found["checkpoint"].severity, found["checkpoint"].seen) == ("error", told)
    moved = f"mv {folder / 'checkpoints' / other.name} {folder}"
    assert found["checkpoint"].fix == (f"unnoise train {folder / 'recipe.yaml'} --out {folder}-2" if alone else moved)


def test_a_model_that_is_gone_is_found(points, copy_of):
    folder = copy_of(points)
    shutil.rmtree(folder / "model")
    (folder / "model").mkdir()
    assert {name: finding.severity for name, finding in found_in(folder).items()} == {"model": "warning"}
    shutil.rmtree(folder / "checkpoints")
    assert {name: finding.severity for name, finding in found_in(folder).items()} == {"model": "error"}


def test_data_that_changed_is_found_and_samples_are_not_held_against_it(drawn, copy_of, tmp_path):
    folder = copy_of(drawn)
    values = (folder / "recipe.yaml").read_text()
    np.save(tmp_path / "other.npy", pictures(400, seed=1))
    (folder / "recipe.yaml").write_text(values.replace(str(drawn.parent / "data.npy"), str(tmp_path / "other.npy")))
    found = found_in(folder)
    assert set(found) == {"data-changed"}
    assert "fingerprint differs" in found["data-changed"].seen
    (tmp_path / "other.npy").unlink()
    gone = examine_run(folder)
    assert "there is no file" in dict(gone.findings)["data-changed"].seen
    assert gone.notes[-1].startswith("the recipe could not be looked at")


def test_an_average_that_lags_is_found(points, copy_of):
    folder = copy_of(points)
    newest = checkpoints(folder / "checkpoints")[0]
    whole = load_checkpoint(newest)
    begun = preconditioned(Model.load(folder).blueprint.build(0)).network.state_dict()
    tensors = dict(whole.tensors)
    for name in [name for name in tensors if name.startswith("ema/")]:
        tensors[name] = begun[name.removeprefix("ema/")].contiguous()
    save_checkpoint(folder / "checkpoints", tensors, whole.step, whole.facts)
    assert set(found_in(folder)) == {"average-lag"}


def test_a_run_that_was_trained_on_another_machine_is_looked_at_here(points, copy_of):
    folder = copy_of(points)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("device: auto", "device: cuda:99"))
    assert "cuda:99" in (folder / "recipe.yaml").read_text()
    found = examine_run(folder, LONG)
    assert found.findings == ()
    assert "signal-left" in found.well


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run folder: expected one with recipe\.yaml"):
        examine_run(tmp_path)


def test_nothing_in_the_folder_is_changed(points):
    before = {path: path.stat().st_mtime_ns for path in points.rglob("*")}
    examine_run(points, seconds=0)
    assert {path: path.stat().st_mtime_ns for path in points.rglob("*")} == before
