"""Autoencoders and CLIP: faults are seeded in their recipes, data and runs, and each is found and named with its fix."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.errors import TrainingDiverged
from unnoise.recipes.clip_folder import load_clip
from unnoise.recipes.codec_folder import read_codec, save_codec
from unnoise.recipes.diagnosis import patients
from unnoise.recipes.diagnosis import settings as settings_checks
from unnoise.recipes.diagnosis.base import checks
from unnoise.recipes.diagnosis.examine import examine_recipe, examine_run
from unnoise.recipes.diagnosis.patients import RecipePatient
from unnoise.recipes.diagnosis.runs import RunPatient
from unnoise.recipes.diagnosis.trial import overfit
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_any_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import checkpoints

KINDS = ("autoencoder", "clip")
CHECKS = {
    RecipePatient: {name for name, cls in checks.items() if issubclass(RecipePatient, cls.needs)},
    RunPatient: {name for name, cls in checks.items() if issubclass(RunPatient, cls.needs)},
}
TRAINING = {
    "steps": 60, "batch_size": 20, "lr": 5e-3, "warmup": 5, "ema": 0.9, "validate_every": 20, "sample_every": 0,
    "checkpoint_every": 30, "log_every": 4, "validation_size": 64,
}  # fmt: skip
PARTS = {
    "autoencoder": {
        "autoencoder": {"width": 8, "multipliers": [1, 2], "blocks": 1, "latent_channels": 2, "attention": False},
    },
    "clip": {
        "text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 12}},
        "pictures": {"width": 8, "multipliers": [1, 2], "blocks": 1}, "dim": 16,
    },
}  # fmt: skip
COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220), "green": (20, 160, 20), "yellow": (230, 220, 20)}


def pictures(n=80, seed=0):
    """Squares of four colours with a darker half, (n, 8, 8, 3), uint8, and what they are called."""
    rng, found, texts = np.random.default_rng(seed), [], []
    for i in range(n):
        colour, side = list(COLOURS)[i % 4], ("left", "right")[i // 4 % 2]
        pixels = np.full((8, 8, 3), COLOURS[colour], dtype=np.float64)
        pixels[:, :4] *= 0.5 if side == "left" else 1.0
        pixels[:, 4:] *= 0.5 if side == "right" else 1.0
        found.append(np.clip(pixels + rng.normal(0, 9, pixels.shape), 0, 255).astype(np.uint8))
        texts.append(f"{colour} {side}")
    return np.stack(found), texts


def folder_of(place, pixels, texts=None):
    """A folder of pictures, with captions where there are some."""
    place.mkdir(parents=True, exist_ok=True)
    for i, each in enumerate(pixels):
        Image.fromarray(each).save(place / f"{i:03}.png")
        if texts is not None:
            (place / f"{i:03}.txt").write_text(texts[i])
    return place


def recipe(kind, place, *options, **more):
    data = {"name": "folder", "path": str(place), "size": 8, "cache": False}
    if place.suffix == ".npy":
        data = {"name": "array", "path": str(place)}
    return load_any_recipe({"kind": kind, "data": data, **PARTS[kind], "training": TRAINING, **more}, options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("pictures"), *pictures())


@pytest.fixture(autouse=True)
def _short_trials(monkeypatch):
    """A batch is tried for 80 steps of 200, which is enough for networks as small as these."""
    monkeypatch.setattr(patients, "overfit", partial(overfit, most=80))


def found_by(checked, seconds=0, progress=None):
    return examine_recipe(checked, seconds, progress)


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_recipe_is_well_and_learns_one_batch(kind, place):
    told = []
    found = found_by(recipe(kind, place), seconds=600, progress=lambda what, *_: told.append(what))
    assert found.findings == ()
    assert set(found.well) == CHECKS[RecipePatient]
    assert {"one-batch", "gradients", "memory", "refused", "range"} <= set(found.well)
    assert not {"signal-left", "times", "guidance", "labels"} & set(found.well)  # which are about a denoiser
    (tried,) = found.notes
    first, last = (float(part) for part in tried.rpartition("from ")[2].split(" to "))
    assert last < 0.7 * first
    assert "learning features of the data" not in told


SETTINGS = {
    "learning-rate": ["training.lr=0.5"],
    "warmup": ["training.warmup=80"],
    "average-length": ["training.ema=0.9999"],
    "batch-and-data": ["training.batch_size=100"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", SETTINGS)
def test_a_wrong_setting_is_found_and_its_fix_heals_it(kind, check, place):
    found = found_by(recipe(kind, place, *SETTINGS[check]))
    assert found.named("error", "warning") == [check]
    fix = dict(found.findings)[check].fix
    assert fix
    assert check not in found_by(recipe(kind, place, *SETTINGS[check], fix)).named()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_with_which_one_batch_is_not_learned_is_named(kind, place):
    found = found_by(recipe(kind, place, "training.lr=1e-8"), seconds=600)
    finding = dict(found.findings)["one-batch"]
    assert finding.severity == "error"
    assert "too low" in finding.cause
    assert finding.fix == "training.optimizer=adamw training.lr=0.001"


def test_a_rate_with_which_one_batch_blows_up_is_named(place):
    found = found_by(
        recipe("autoencoder", place, "training.lr=10", "training.clip=0", "training.warmup=0"), seconds=600
    )
    assert {"one-batch", "gradients"} & set(found.named("error"))
    assert "learning-rate" in found.named("error")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_does_not_fit_is_found_and_the_fix_fits(kind, place, monkeypatch):
    large = ["training.batch_size=80"]
    monkeypatch.setattr(settings_checks, "free_bytes", lambda device: 3_000_000)
    found = found_by(recipe(kind, place, *large))
    assert found.named("error") == ["memory"]
    fix = dict(found.findings)["memory"].fix
    in_parts = {
        "autoencoder": "machine.micro_batch=",
        "clip": "training.batch_size=",
    }  # CLIP tells a pair from all others
    assert fix.startswith(in_parts[kind])
    assert "memory" not in found_by(recipe(kind, place, *large, fix)).named()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_are_all_the_same_are_found(kind, tmp_path):
    pixels, texts = pictures()
    found = found_by(recipe(kind, folder_of(tmp_path, pixels[:1].repeat(80, 0), texts)))
    assert found.named("error") == ["constant"]
    assert dict(found.findings)["constant"].seen == "all 80 samples are the same"


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_broken_and_flat_pictures_are_found(kind, tmp_path):
    pixels, texts = pictures()
    twice = folder_of(tmp_path / "twice", np.concatenate([pixels, pixels[:20]]), [*texts, *texts[:20]])
    (twice / "000.png").write_bytes(b"no picture")
    found = found_by(recipe(kind, twice))
    assert found.named("warning") == ["duplicates"]
    assert dict(found.findings)["duplicates"].seen.startswith("19 of 99 samples")
    assert "000.png" in dict(found.findings)["unreadable"].seen
    flat = folder_of(tmp_path / "flat", (pixels > 128).astype(np.uint8), texts)
    assert "range" in found_by(recipe(kind, flat)).named("warning")


def test_a_value_that_is_nan_is_named(tmp_path):
    x = np.random.default_rng(0).standard_normal((100, 1, 8, 8)).astype(np.float32)
    x[17, 0, 3, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    found = found_by(recipe("autoencoder", tmp_path / "x.npy"), seconds=600)
    assert found.named("error") == ["not-finite"]
    assert dict(found.findings)["not-finite"].seen.endswith("first in sample 17")
    assert found.notes == ()


def test_a_channel_that_never_changes_is_named_without_a_codec_that_nobody_can_choose(tmp_path):
    x = np.random.default_rng(0).standard_normal((100, 2, 8, 8)).astype(np.float32)
    x[:, 1] = 3.0
    np.save(tmp_path / "x.npy", x)
    found = found_by(recipe("autoencoder", tmp_path / "x.npy"))
    assert found.named("error") == ["constant"]
    assert dict(found.findings)["constant"].fix == ""


def test_pictures_without_captions_are_told_as_training_tells_it(tmp_path):
    found = found_by(recipe("clip", folder_of(tmp_path, pictures()[0])))
    assert found.named("error") == ["refused"]
    assert "has no captions to learn from" in dict(found.findings)["refused"].seen


def test_what_training_refuses_is_told(place):
    found = found_by(recipe("clip", place, "machine.activation_checkpointing=true"), seconds=600)
    assert found.named("error") == ["refused"]
    assert "has no blocks to forget" in found.findings[0][1].seen
    assert {"one-batch", "gradients"} <= set(found.unknown)


# Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory, place):
    """A healthy run of each kind."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for kind in KINDS:
        more = {"loss": {"perceptual": 0.0}} if kind == "autoencoder" else {}
        for _ in Run(recipe(kind, place, **more), folder / kind).events():
            pass
        found[kind] = folder / kind
    return found


@pytest.fixture
def copy_of(runs, tmp_path):
    return lambda kind: shutil.copytree(runs[kind], tmp_path / "run")


def found_in(folder):
    """What the checks of runs find, by name."""
    return {name: finding for name, finding in examine_run(folder).findings if name in CHECKS[RunPatient]}


def rewrite(folder, edit):
    lines = edit(read_metrics(folder / "metrics.jsonl"))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_run_is_well(kind, runs):
    found = examine_run(runs[kind])
    assert {name for name in found.named("error", "warning") if name in CHECKS[RunPatient]} == set()
    assert {"diverged", "loss-flat", "spikes", "checkpoint", "model", "weights", "data-changed"} <= set(found.well)
    assert {"duplicates", "learning-rate", "memory"} <= set(found.well)  # of its recipe
    assert found.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_diverged_is_found_and_its_fix_is_a_command(kind, place, tmp_path):
    wild = ["training.lr=10", "training.weight_decay=1", "training.clip=0", "training.warmup=0", "training.steps=400"]
    if kind == "autoencoder":
        wild.append("loss.perceptual=0")
    with pytest.raises(TrainingDiverged, match="or ask `unnoise doctor`"):
        for _ in Run(recipe(kind, place, *wild), tmp_path / "run").events():
            pass
    found = found_in(tmp_path / "run")
    assert found["diverged"].severity == "error"
    assert "with half the learning rate, and the run ended" in found["diverged"].seen
    calmer = "training.lr=0.001 training.warmup=100 training.clip=1"
    assert (
        found["diverged"].fix == f"unnoise train {tmp_path / 'run' / 'recipe.yaml'} {calmer} --out {tmp_path / 'run'}-2"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_never_fell_is_found(kind, place, tmp_path):
    slow = ["training.lr=1e-9", *(["loss.perceptual=0"] if kind == "autoencoder" else [])]
    for _ in Run(recipe(kind, place, *slow), tmp_path / "run").events():
        pass
    found = examine_run(tmp_path / "run")
    assert "loss-flat" in found.named("error")
    assert "learning-rate" in found.named("warning")  # the cause
    assert dict(found.findings)["loss-flat"].fix == f"unnoise doctor {tmp_path / 'run' / 'recipe.yaml'}"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_nan_are_named(kind, copy_of):
    folder = copy_of(kind)
    if kind == "clip":
        clip = load_clip(folder)
        with torch.no_grad():
            clip.clip.project_picture.weight[0, 0] = float("nan")
        clip.save(folder / "model")
    else:
        codec, values = read_codec(folder)
        weights = {name: value.clone() for name, value in codec.weights().items()}
        weights["decoder.leave.weight"][0] = float("nan")
        save_codec(folder / "model", codec.with_weights(weights), load_spec(values), values["trained"])
    found = found_in(folder)
    assert set(found) == {"weights"}
    assert found["weights"].severity == "error"
    assert {"clip": "project_picture.weight", "autoencoder": "leave.weight"}[kind] in found["weights"].seen


def load_spec(values):
    from unnoise.data.base import Spec

    return Spec(values["data"]["kind"], tuple(values["data"]["shape"]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_gone_or_damaged_is_found(kind, copy_of, tmp_path):
    folder = copy_of(kind)
    newest, _ = checkpoints(folder / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert found_in(folder)["checkpoint"].fix == f"rm -r {newest}"
    shutil.rmtree(folder / "model")
    found = found_in(folder)
    assert found["model"].severity == "error"
    assert found["model"].fix == f"unnoise train {folder / 'recipe.yaml'} --out {folder}"


@pytest.mark.parametrize("kind", KINDS)
def test_spikes_and_data_that_changed_are_found(kind, copy_of, tmp_path):
    folder = copy_of(kind)

    def spiked(lines):
        for line in [line for line in lines if "gradient_norm" in line][4:12:3]:
            line["loss"] *= 50
        return lines

    rewrite(folder, spiked)
    assert found_in(folder)["spikes"].severity == "warning"
    text = (folder / "recipe.yaml").read_text()
    other = folder_of(tmp_path / "others", *pictures(seed=1))
    (path,) = [line.split("path: ")[1] for line in text.splitlines() if "  path: /" in line]
    (folder / "recipe.yaml").write_text(text.replace(path, str(other)))
    assert "fingerprint differs" in found_in(folder)["data-changed"].seen
