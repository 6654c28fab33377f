"""`unnoise ema`: averages of any length after training."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise as package
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.averaging import RunAverages, best_of
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.averages import PowerAverage
from unnoise.training.loop import Stepped

TINY = (
    "training.steps=60", "training.checkpoint_every=60", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=60", "network.width=16", "network.depth=1", "training.batch_size=16", "training.lr=1e-2",
    "training.ema=[0.9, power-0.2]", "training.snapshots.every=2", "machine.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run on the spiral, and its weights after every update."""
    folder = tmp_path_factory.mktemp("ema") / "run"
    run = Run(load_recipe("spiral", TINY), folder)
    path = [
        torch.cat([view.flatten() for view in run.state.masters.views]).double().numpy()
        for event in run.events()
        if isinstance(event, Stepped)
    ]
    return run, np.stack(path)


def weights(model):
    network = preconditioned(model.denoiser).network
    return torch.cat([p.detach().flatten() for p in network.parameters()]).double().numpy()


def exact(path, average):
    value = np.zeros(path.shape[1])
    for step, each in enumerate(path):
        value = value + (1 - average.kept(step, 16)) * (each - value)
    return value


@pytest.mark.parametrize("length", [0.05, 0.07, 0.1, 0.15])
def test_a_length_that_was_not_kept_is_made_within_its_stated_error(trained, length):
    run, path = trained
    made = RunAverages(run.folder).of_length(length)
    assert made.error < 0.02
    off = np.abs(weights(made.model) - exact(path, PowerAverage(length))).max()
    assert off < 1e-5 + 0.05 * made.error
    assert np.abs(weights(made.model) - path[-1]).max() > 1e-3


def test_an_average_that_was_kept_is_given_by_its_name(unnoise, trained, tmp_path):
    run, path = trained
    said = unnoise("ema", run.folder, "--name", "power-0.2", "-o", tmp_path / "model")
    assert said.code == 0, said
    model = package.load(tmp_path / "model")
    np.testing.assert_allclose(weights(model), exact(path, PowerAverage(0.2)), atol=1e-6)
    assert model.trained["average"] == "power-0.2"
    assert "validation_loss" not in model.trained
    np.testing.assert_array_equal(weights(run.model("power-0.2")), weights(model))


def test_it_lists_what_there_is(unnoise, trained):
    said = unnoise("ema", trained[0].folder)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0].split(maxsplit=1) == ["exponential-0.9", "the model that samples"]
    assert "30 of lengths 0.05, 0.1, to step 60" in said.out
    assert "length 0.1            profile off by 0.00%" in said.out


def test_a_model_of_a_length_can_be_sampled(unnoise, trained, tmp_path):
    folder = trained[0].folder
    assert unnoise("ema", folder, "--length", "0.08").code == 0
    out = tmp_path / "x.npz"
    assert unnoise("sample", folder / "averages" / "power-0.08", "-n", 3, "-o", out).code == 0
    assert out.is_file()


def test_a_sweep_names_the_length_with_the_lowest_loss_and_draws_them(unnoise, trained, tmp_path):
    run, _ = trained
    picture = tmp_path / "sweep.png"
    said = unnoise("ema", run.folder, "--sweep", "--lengths", "0.05,0.1,0.2", "-o", picture)
    assert said.code == 0, said
    losses = {line.split()[0]: float(line.split()[1]) for line in said.out.splitlines()[1:]}
    best = min(losses, key=losses.get)
    assert f"--length {best}" in said.err
    assert best_of(RunAverages(run.folder).sweep((0.05, 0.1, 0.2))).length == float(best)
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 300


def test_a_dry_run_says_how_large_the_snapshots_will_be(unnoise):
    said = unnoise("train", "spiral", "--dry-run", "training.snapshots.every=100", "training.snapshots.precision=fp16")
    parameters = int(said.out.partition(" parameters")[0].split()[-1].replace(",", ""))
    assert f"snapshots 20 of {parameters * 2 * 2 / 1000:.3g} kB" in said.out


def test_what_cannot_be_made_is_refused_in_one_line(refused, unnoise, trained, tmp_path):
    folder = trained[0].folder
    assert "must be at most 0.28" in refused("ema", folder, "--length", "0.5")
    assert "no average of this run is called 'power-0.3'" in refused("ema", folder, "--name", "power-0.3")
    assert "one at a time" in refused("ema", folder, "--length", "0.1", "--sweep")
    assert "is no run folder" in refused("ema", tmp_path)
    plain = tmp_path / "plain"
    assert unnoise("train", "spiral", "--out", plain, *TINY[:-2]).code == 0
    assert "train with training.snapshots.every=N" in refused("ema", plain, "--length", "0.1")
    assert "snapshots               none" in unnoise("ema", plain).out


def test_a_damaged_snapshot_is_named_and_without_it_the_others_do(refused, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0].folder, folder)
    file = folder / "snapshots" / "000000030.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "000000030.safetensors: its checksum" in refused("ema", folder, "--length", "0.08")
    file.unlink()
    with_all, without = (RunAverages(each).of_length(0.08) for each in (trained[0].folder, folder))
    assert with_all.error < without.error < 0.02
