"""Faults are seeded one by one, and exactly the check that is about them speaks; without the fault all are silent."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.model import Model
from unnoise.nn.base import Network, networks
from unnoise.recipes.diagnosis import data as data_checks
from unnoise.recipes.diagnosis import settings as settings_checks
from unnoise.recipes.diagnosis.base import checks
from unnoise.recipes.diagnosis.examine import examine_recipe
from unnoise.recipes.diagnosis.patients import DiffusionPatient
from unnoise.recipes.diagnosis.trial import overfit
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import prepare
from unnoise.recipes.works import work_of

HEALTHY = {
    "data": {"name": "moons", "num_points": 400, "noise": 0.06},
    "process": {"name": "variance_exploding", "sigma_min": 0.01, "sigma_max": 20.0},
    "denoiser": {"name": "edm"},
    "network": {"name": "mlp", "width": 32, "depth": 2},
    "objective": {"name": "mse", "times": {"name": "log_uniform", "low": 0.01, "high": 20.0}, "condition_dropout": 0.1},
    "training": {"steps": 2000, "batch_size": 64, "lr": 3e-3, "ema": 0.998},
    "sampling": {"sampler": "dpmpp_2m", "steps": 20, "guidance": 1.5},
}  # fmt: skip


def recipe(*options, **values):
    return load_recipe({**HEALTHY, **values}, options)


def spoken(*options, seconds=0, **values):
    """The checks that find an error or a warning."""
    return examine_recipe(recipe(*options, **values), seconds).named("error", "warning")


def array(tmp_path, x, labels=None):
    """The data section of samples that are written to a file."""
    path = tmp_path / "data.npz"
    np.savez(path, x=x, **({} if labels is None else {"labels": labels}))
    return {"name": "array", "path": str(path)}


def pictures(n=200, seed=0):
    """Bright and dark discs at random places, 8 x 8, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8]
    cx, cy, bright = rng.uniform(2, 5, n), rng.uniform(2, 5, n), rng.integers(0, 2, n)
    inside = np.hypot(x - cx[:, None, None], y - cy[:, None, None]) < 2
    pixels = np.where(inside, np.where(bright, 1.0, -1.0)[:, None, None], 0.1 * rng.standard_normal((n, 8, 8)))
    return pixels[:, None].astype(np.float32), bright


UNET = {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": []}


@pytest.mark.parametrize("name", ["digits", "spiral", "two-moons-labels"])
def test_the_shipped_recipes_are_well(name):
    found = examine_recipe(load_recipe(name), seconds=600)
    assert found.findings == ()
    assert found.healthy
    assert set(found.well) == {name for name, cls in checks.items() if issubclass(DiffusionPatient, cls.needs)}


def test_a_healthy_recipe_is_well():
    assert spoken(seconds=600) == []


SETTINGS = {
    "signal-left on 4 levels": (["process=linear", "process.num_steps=4", "sampling.steps=4"], "signal-left"),
    "signal-left by small betas": (["process=scaled_linear", "process.beta_end=0.001"], "signal-left"),
    "signal-left by a small sigma_max": (["process.sigma_max=2", "objective.times=uniform"], "signal-left"),
    "no-signal": (["process=flow", "denoiser=noise", "objective.times=uniform"], "no-signal"),
    "sigma-data": (["denoiser.sigma_data=0.2"], "sigma-data"),
    "average-length": (["training.ema=0.9999"], "average-length"),
    "average-length in images": (["training.ema=halflife-500000"], "average-length"),
    "average-length of one of two": (["training.ema=[0.99,0.9999]", "training.model_average=exponential-0.9999"], "average-length"),
    "warmup": (["training.warmup=2000"], "warmup"),
    "warmup in images": (["training.warmup=200000", "training.counted_in=images"], "warmup"),
    "learning-rate too high": (["training.lr=0.5"], "learning-rate"),
    "learning-rate too high for lion": (["training.optimizer=lion", "training.lr=0.01"], "learning-rate"),
    "learning-rate 0": (["training.lr=0"], "learning-rate"),
    "learning-rate too low": (["training.lr=1e-6"], "learning-rate"),
    "times too high": (["objective.times={name: log_uniform, low: 1.0, high: 20.0}"], "times"),
    "times too low": (["objective.times={name: log_normal, mean: -3.0, std: 0.5}"], "times"),
    "guidance": (["objective.condition_dropout=0"], "guidance"),
    "guidance without labels": (["objective.condition_dropout=1"], "guidance"),
    "batch-and-data": (["training.batch_size=512"], "batch-and-data"),
    "capacity": (["data={name: digits}", "network.width=16", "training.steps=1000"], "capacity"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "check"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_is_found_and_its_fix_heals_it(options, check):
    found = examine_recipe(recipe(*options), seconds=0)
    assert set(found.named("error", "warning")) - ({"learning-rate"} if check == "warmup" else set()) == {check}
    (finding,) = [finding for name, finding in found.findings if name == check]
    assert finding.seen
    assert finding.cause
    healed = examine_recipe(recipe(*options, *finding.fix.split()), seconds=0)
    assert check not in healed.named()


def test_the_numbers_of_the_signal_left_are_those_of_the_schedule():
    (finding,) = checks["signal-left"]().look(DiffusionPatient(recipe("process=linear", "process.num_steps=100")))
    alpha_bar = float(np.prod(1 - np.linspace(1e-4, 0.02, 100)))
    assert f"{np.sqrt(alpha_bar / (1 - alpha_bar)):.2g} of the height" in finding.seen  # data of unit height
    assert f"log-SNR {np.log(alpha_bar / (1 - alpha_bar)):.1f}" in finding.seen


def test_a_linear_schedule_of_a_thousand_levels_leaves_nothing():
    assert spoken("process=linear", "denoiser=noise", "objective.times=uniform") == []


def test_what_happens_too_seldom_is_a_hint_and_nothing_worse():
    found = examine_recipe(recipe("training.steps=400", "evaluation.every=1000000", "training.ema=0.99"), seconds=0)
    assert found.healthy
    assert found.named("hint") == ["seldom"]
    (finding,) = [finding for _, finding in found.findings]
    assert "training.validate_every=80" in finding.fix
    assert "evaluation.every=5120" in finding.fix


def test_bf16_without_hardware_for_it_is_found(monkeypatch):
    monkeypatch.setattr(settings_checks, "multiplies_bf16", lambda device: False)
    assert spoken("machine.precision=bf16") == ["precision"]
    monkeypatch.setattr(settings_checks, "multiplies_bf16", lambda device: True)
    assert spoken("machine.precision=bf16") == []


def test_a_batch_that_does_not_fit_is_found_and_the_fix_fits(monkeypatch):
    monkeypatch.setattr(settings_checks, "free_bytes", lambda device: 30_000_000)
    options = ["data=digits", "data.name=digits", "training.batch_size=1024", "training.steps=100", "training.ema=0.9"]
    found = examine_recipe(recipe(*options, network=UNET), seconds=0)
    assert found.named("error") == ["memory"]
    assert found.findings[0][1].fix.startswith("machine.micro_batch=")
    assert "memory" not in examine_recipe(recipe(*options, found.findings[0][1].fix, network=UNET), seconds=0).named()


def test_pictures_that_stay_in_255_are_found(tmp_path):
    x, _ = pictures()
    options = dict(data=array(tmp_path, 127.5 * (x + 1)), network=UNET)
    assert spoken("training.steps=500", "training.ema=0.99", **options) == []
    found = examine_recipe(recipe("training.steps=500", "training.ema=0.99", "codec=identity", **options), seconds=0)
    assert found.named("error", "warning")[0] == "range"
    assert "[" in found.findings[0][1].seen
    assert set(found.named("error", "warning")) <= {"range", "signal-left", "times"}  # of one and the same cause


def test_pictures_that_are_all_but_flat_are_found(tmp_path):
    x, _ = pictures()
    np.save(tmp_path / "flat.npy", (0.5 + 0.5 * x).clip(0, 1).astype(np.uint8))  # of 0 to 1, where 0 to 255 was meant
    data = {"name": "array", "path": str(tmp_path / "flat.npy")}
    found = examine_recipe(recipe("training.steps=500", "training.ema=0.99", data=data, network=UNET), seconds=0)
    (finding,) = [finding for name, finding in found.findings if name == "range"]
    assert finding.severity == "warning"
    assert finding.seen.startswith("all values of the pictures lie in [0, 1] of 255")


def test_files_that_cannot_be_read_are_named(tmp_path):
    x, _ = pictures(60)
    for i, pixels in enumerate((127.5 * (x[:, 0] + 1)).clip(0, 255).astype(np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    data = {"name": "folder", "path": str(tmp_path), "size": 8, "cache": False}
    options = ["training.steps=100", "training.ema=0.9", "training.batch_size=32"]
    assert "unreadable" in examine_recipe(recipe(*options, data=data, network=UNET), seconds=0).well
    (tmp_path / "07.png").write_bytes(b"no picture")
    found = dict(examine_recipe(recipe(*options, data=data, network=UNET), seconds=0).findings)
    assert found["unreadable"].severity == "hint"
    assert found["unreadable"].seen.startswith("1 files or samples were passed over, such as ")
    assert "07.png" in found["unreadable"].seen


def test_duplicates_are_found(tmp_path):
    x, _ = pictures()
    options = ["training.steps=500", "training.ema=0.99"]
    assert spoken(*options, data=array(tmp_path, x), network=UNET) == []
    found = examine_recipe(recipe(*options, data=array(tmp_path, np.concatenate([x, x[:20]])), network=UNET), seconds=0)
    assert found.named("error", "warning") == ["duplicates"]
    assert found.findings[0][1].seen.startswith("20 of 220 samples")


def test_held_out_samples_that_are_trained_on_are_found(tmp_path):
    x, _ = pictures()
    options = ["training.steps=200", "training.ema=0.98", "training.validation_share=0.25"]
    assert spoken(*options, data=array(tmp_path, x), network=UNET) == []
    assert set(spoken(*options, data=array(tmp_path, np.concatenate([x, x[:40]])), network=UNET)) == {
        "duplicates",
        "leak",
    }


def test_values_that_are_not_finite_are_found_where_they_are(tmp_path):
    x, _ = pictures()
    x[17, 0, 2, 3] = np.nan
    found = examine_recipe(recipe(data=array(tmp_path, x), network=UNET), seconds=0)
    assert found.named("error") == ["not-finite"]
    assert found.findings[0][1].seen == "1 values in 1 samples are NaN or infinite, first in sample 17"


def test_a_sample_of_shards_that_is_no_number_is_called_by_its_number_in_the_whole_data(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.recipes.diagnosis.patients.MOST_LOOKED_AT", 64)
    values = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    values[250] = np.nan
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for i, each in enumerate(values):
            stream = io.BytesIO()
            np.save(stream, each)
            member = tarfile.TarInfo(f"{i:03}.npy")
            member.size = stream.tell()
            stream.seek(0)
            tar.addfile(member, stream)
    found = examine_recipe(recipe(data={"name": "shards", "path": str(tmp_path / "all.tar")}), seconds=0)
    assert found.findings[0][1].seen == "2 values in 1 samples are NaN or infinite, first in sample 250"


def test_data_that_never_changes_is_found(tmp_path):
    assert spoken(data=array(tmp_path, np.full((100, 2), 3.0))) == ["constant"]
    x = np.stack([np.random.default_rng(0).standard_normal(100), np.zeros(100)], 1)
    assert spoken(data=array(tmp_path, x)) == ["constant"]
    assert "channels never change" in examine_recipe(recipe(data=array(tmp_path, x)), 0).findings[0][1].seen


def test_too_few_samples_and_too_much_time_to_learn_them_by_heart_are_found(tmp_path):
    x, _ = pictures(40)
    assert "few-samples" in spoken("training.batch_size=32", data=array(tmp_path, x), network=UNET)
    few = array(tmp_path, pictures(60)[0])
    options = dict(data=few, network={**UNET, "width": 16})
    found = examine_recipe(recipe("training.batch_size=32", **options), seconds=0)
    assert found.named("error", "warning") == ["few-samples"]
    assert "seen 1,067 times" in found.findings[0][1].seen
    fix = found.findings[0][1].fix
    assert spoken("training.batch_size=32", "training.ema=0.9", fix, **options) == []


def test_unbalanced_labels_are_found(tmp_path):
    x, _ = pictures()
    labels = np.zeros(200, dtype=np.int64)
    labels[:10] = 1
    options = ["training.steps=500", "training.ema=0.99"]
    assert spoken(*options, data=array(tmp_path, x, labels), network=UNET) == ["labels"]
    labels[:100] = 1
    assert spoken(*options, data=array(tmp_path, x, labels), network=UNET) == []


@pytest.mark.parametrize("shift", [1, -2])
def test_labels_that_have_slipped_are_found(tmp_path, shift):
    x, bright = pictures(400)
    options = ["training.steps=500", "training.ema=0.99"]
    assert spoken(*options, data=array(tmp_path, x, bright), network=UNET) == []
    found = examine_recipe(recipe(*options, data=array(tmp_path, x, np.roll(bright, shift)), network=UNET), seconds=0)
    assert found.named("error", "warning") == ["labels-shifted"]
    assert f"moved by {abs(shift)} {'up' if shift > 0 else 'down'}" in found.findings[0][1].seen


def test_labels_that_say_nothing_at_all_are_not_called_slipped(tmp_path):
    x, _ = pictures(400)
    labels = np.random.default_rng(1).integers(0, 2, 400)
    patient = DiffusionPatient(recipe(data=array(tmp_path, x, labels), network=UNET))
    assert list(checks["labels-shifted"]().look(patient)) == []
    after = torch.arange(1, 401) % 400
    assert data_checks.agreement(torch.from_numpy(labels), after) == pytest.approx(0.5, abs=0.1)
    assert data_checks.agreement(torch.arange(400) // 2, after) == 0.5  # in pairs: every second one


def test_a_rate_with_which_one_batch_is_not_learned_is_named():
    options = ["training.lr=1e-5", "training.steps=10000"]
    assert spoken(*options, seconds=0) == []  # by its size alone it could be right
    found = examine_recipe(recipe(*options), seconds=600)
    assert found.named("error", "warning") == ["one-batch"]
    assert "too low" in found.findings[0][1].cause
    assert spoken(*options, *found.findings[0][1].fix.split(), seconds=600) == []


def test_a_rate_with_which_one_batch_blows_up_is_named():
    options = ["training.optimizer=sgd", "training.lr=1.9", "training.clip=0"]
    assert spoken(*options, seconds=0) == []
    found = examine_recipe(recipe(*options), seconds=600)
    assert found.named("error", "warning") in (["one-batch"], ["gradients"])
    assert "too high" in found.findings[0][1].cause


STANDSTILLS = {
    "sgd, all but clipped away": (["training.optimizer=sgd", "training.clip=1e-6"], "and sgd makes no step of it"),
    "adam, all but clipped away": (["training.optimizer=adam", "training.clip=1e-12"], "and adam makes no step of it"),
    "sgd, a rate that is ordinary for adam": (["training.optimizer=sgd", "training.lr=1e-6"], "of 1e-06 is too low for sgd"),
    "lion": (["training.optimizer=lion", "training.lr=1e-5", "training.steps=10000"], "of 1e-05 is too low for lion"),
    "adam, too high": (["training.optimizer=adam", "training.lr=1", "training.clip=0"], "of 1 is too high: the steps overshoot"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "why"), STANDSTILLS.values(), ids=STANDSTILLS)
def test_why_a_batch_is_not_learned_is_told_by_what_its_loss_did(options, why):
    finding = dict(examine_recipe(recipe(*options), seconds=600).findings)["one-batch"]
    assert finding.severity == "error"
    assert why in finding.cause
    assert "one-batch" not in examine_recipe(recipe(*options, *finding.fix.split()), seconds=600).named()


def test_what_training_refuses_is_told_and_not_called_well(tmp_path):
    assert spoken("objective.noise.offset=0.1") == ["refused"]
    found = examine_recipe(recipe("objective.noise.offset=0.1"), seconds=600)
    assert "have no channels" in found.findings[0][1].seen
    assert spoken("machine.device=cuda:99") == ["refused"]
    model = tmp_path / "model"
    Model(prepare(recipe()).blueprint, prepare(recipe()).blueprint.build()).save(model)
    start = {"model": str(model), "freeze": "*"}
    assert spoken(start=start, seconds=600) == ["refused"]
    assert spoken(start={"model": str(model)}, seconds=600) == []


@pytest.fixture
def half_dead(monkeypatch):
    """A network of two layers, of which one never takes part."""

    class HalfDead(Network):
        Config = networks["mlp"].Config

        def __init__(self, shape, out_shape=None, num_classes=0, config=None):
            super().__init__(shape, out_shape, num_classes, config)
            self.used = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2))
            self.unused = torch.nn.Linear(2, 2)

        def forward(self, x, noise_level, cond=None):
            return self.used(x) + 0 * self.unused(x)

    list(networks)
    monkeypatch.setitem(networks._members, "half-dead", HalfDead)
    HalfDead.registered_name = "half-dead"


def test_weights_without_a_gradient_are_named(half_dead):
    found = examine_recipe(recipe(network={"name": "half-dead"}), seconds=600)
    assert found.named("error", "warning") == ["gradients"]
    assert "unused.weight, unused.bias" in found.findings[0][1].seen


def test_a_trial_changes_nothing_of_what_it_is_given():
    work = work_of(recipe())
    before = work.recipe.yaml()
    first, second = overfit(work, seconds=600, most=20), overfit(work, seconds=600, most=20)
    assert first == second
    assert len(first.losses) == 20
    assert first.dead == first.broken == ()
    assert work.recipe.yaml() == before
