"""Autoencoders are trained by the machinery of every run: resumed to the byte, in micro batches, with an adversary beside them."""

import numpy as np
import pytest
import torch

from unnoise.errors import BadOption, ModelFolderError, RunFolderError
from unnoise.model import Model
from unnoise.recipes.codec_folder import load_codec
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_any_recipe, load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import load_checkpoint

ADVERSARY = {"start": 1, "width": 4, "layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of smooth shades, 8 x 8."""
    place = tmp_path_factory.mktemp("shades") / "shades.npy"
    generator = np.random.default_rng(0)
    a, b, c = generator.uniform(-1, 1, (3, 96, 1, 1))
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    np.save(place, (127.5 + 60 * (a * x + b * y) + 60 * c).clip(0, 255).astype(np.uint8))
    return place


def recipe(data, **more):
    values = {
        "kind": "autoencoder", "data": {"name": "array", "path": str(data)},
        "autoencoder": {"width": 4, "multipliers": [1, 2], "blocks": 1, "latent_channels": 1, "attention": False},
        "loss": {"perceptual": 0.0}, "training": {
            "steps": 4, "batch_size": 6, "lr": 5e-3, "warmup": 0, "ema": 0.8, "validation_size": 16, "validate_every": 1000,
            "sample_every": 0, "checkpoint_every": 2, "validation_share": 0.25, "log_every": 2,
        },
    }  # fmt: skip
    return load_any_recipe(values, **more)


def finished(run, stop=lambda: False):
    for _ in run.events(stop):
        pass
    return run


def test_an_autoencoder_learns_to_give_its_data_back(data, tmp_path):
    longer = {"training__steps": 120, "training__batch_size": 16, "training__ema": 0.9, "loss__pixel": "l2"}
    longer |= {"training__checkpoint_every": 60, "training__log_every": 20}
    run = finished(Run(recipe(data, **longer), tmp_path / "run"))
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "psnr" in line]
    assert lines[-1]["psnr"] > lines[0]["psnr"] + 8
    assert "by_time" not in lines[-1]
    codec = load_codec(tmp_path / "run")
    x = run.train_data.x
    assert codec.encode(x).std() == pytest.approx(1, abs=0.05)
    assert codec.encode(x).mean() == pytest.approx(0, abs=0.05)
    error = (codec.decode(codec.encode(x)) - x.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > lines[-1]["psnr"] - 2
    assert codec.hash == run.made().codec.hash


@pytest.mark.parametrize("adversarial", [None, ADVERSARY], ids=["alone", "with an adversary"])
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(data, tmp_path, adversarial):
    checked = recipe(data, loss__adversarial=adversarial)
    finished(Run(checked, tmp_path / "whole"))
    first = Run(checked, tmp_path / "parts")
    finished(first, lambda: first.state.step == 2)
    finished(Run(checked, tmp_path / "parts"))
    files = ["model/model.yaml", "checkpoints/000000004.safetensors"]
    whole, parts = ([(tmp_path / name / file).read_bytes() for file in files] for name in ("whole", "parts"))
    assert whole == parts
    held = load_checkpoint(tmp_path / "whole" / files[1]).tensors
    assert any("adversary" in name for name in held) == (adversarial is not None)


def test_micro_batches_change_nothing_even_with_an_adversary(data, tmp_path):
    ends = []
    for size in (0, 4):
        checked = recipe(data, loss__adversarial=ADVERSARY, machine__micro_batch=size, training__optimizer="sgd")
        ends.append(finished(Run(checked, tmp_path / str(size))).state.masters.vector)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_the_adversary_changes_what_is_learned(data, tmp_path):
    ends = [
        finished(Run(recipe(data, loss__adversarial=each), tmp_path / str(i))).state.masters.vector
        for i, each in enumerate((None, ADVERSARY))
    ]
    assert (ends[0] - ends[1]).abs().max() > 1e-5


def test_features_that_are_learned_first_have_their_say(data, tmp_path):
    losses, told = [], []
    for weight in (0.0, 0.5):
        chosen = {"loss__perceptual": weight, "features": {"name": "own", "shown": 128}, "training__steps": 2}
        run = Run(
            recipe(data, **chosen), tmp_path / str(weight), progress=lambda what, *_, w=weight: told.append((w, what))
        )
        finished(run)
        losses.append(read_metrics(tmp_path / str(weight) / "metrics.jsonl")[0]["validation_loss"])
    assert losses[1] > losses[0] + 0.01
    assert set(told) == {(0.5, "learning features of the data")}
    finished(Run(recipe(data, **chosen), tmp_path / "again", progress=lambda *_: pytest.fail("they are kept")))


def test_a_finished_run_whose_model_is_gone_makes_it_again(data, tmp_path):
    run = finished(Run(recipe(data), tmp_path / "run"))
    (tmp_path / "run" / "model" / "model.yaml").unlink()
    again = Run(recipe(data), tmp_path / "run")
    assert "the model was made again from the checkpoint of step 4" in again.notes
    assert load_codec(tmp_path / "run").hash == run.made().codec.hash


def test_an_autoencoders_recipe_survives_its_file_and_is_no_diffusion_models(data, tmp_path):
    checked = recipe(data, loss__adversarial=ADVERSARY)
    described = checked.describe()
    assert described["kind"] == "autoencoder"
    assert load_any_recipe(described) == checked
    (tmp_path / "ae.yaml").write_text(checked.yaml())
    assert load_any_recipe(tmp_path / "ae.yaml") == checked
    with pytest.raises(BadOption, match=r"ae\.yaml is a recipe of kind autoencoder, and this takes one of a diffusion"):
        load_recipe(tmp_path / "ae.yaml")
    with pytest.raises(BadOption, match="kind: no kind of recipe is called 'autoencodr'; did you mean 'autoencoder'"):
        load_any_recipe({**described, "kind": "autoencodr"})
    with pytest.raises(BadOption, match=r"sampling\.steps: there is no such section"):
        recipe(data, sampling__steps=3)
    with pytest.raises(BadOption, match=r"loss\.kl: must be 0"):
        recipe(data, autoencoder__variational=False)
    with pytest.raises(BadOption, match=r"machine\.parallel: an autoencoder is whole on every process"):
        Run(recipe(data, machine__parallel="fsdp"), tmp_path / "sharded")


def test_another_recipe_does_not_go_on_in_its_folder(data, tmp_path):
    finished(Run(recipe(data), tmp_path / "run"))
    with pytest.raises(RunFolderError, match=r"holds a run of another recipe \(it differs in loss\.pixel\)"):
        Run(recipe(data, loss__pixel="l2"), tmp_path / "run")
    with pytest.raises(ModelFolderError, match="holds an autoencoder, which makes no samples by itself"):
        Model.load(tmp_path / "run")
