"""Models: saved and loaded they sample the same, and a sample does not depend on its batch."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.denoisers.base import denoisers
from unnoise.errors import BadOption, DataError, ModelFolderError, UnnoiseError
from unnoise.model import Model, SamplingSettings, load
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.samplers.base import samplers
from unnoise.samples import read_recipe

NETWORKS = {
    "seed_mlp": {"hidden": 16},
    "mlp": {"width": 8},
    "unet": {"width": 8, "multipliers": [1, 2], "blocks": 1},
    "dit": {"width": 16, "depth": 1, "heads": 2, "patch": [2, 3]},
}


def make(prediction="edm", process="variance_exploding", network="mlp", shape=(2,), labels=("a", "b"), variance=False):
    image = len(shape) == 3
    spec = Spec("image" if image else "points", shape, labels)
    blueprint = Blueprint(
        spec, IdentityCodec.pixels() if image else IdentityCodec((0.5, -1.0), (2.0, 0.3)), schedules.build(process),
        prediction, 0.7, variance, networks.build({"name": network, **NETWORKS[network]}),
    )  # fmt: skip
    model = Model(blueprint, blueprint.build(3), SamplingSettings(steps=4), {"steps": 12, "loss": 0.1 + 0.2})
    with torch.no_grad():  # away from the zero start, so that every weight matters
        generator = torch.Generator().manual_seed(0)
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def cases():
    for prediction in denoisers:
        for process in ("linear", "cosine", "variance_exploding", "flow"):
            if not (denoisers[prediction].needs_signal and process == "flow"):
                yield prediction, process


@pytest.mark.parametrize(("prediction", "process"), list(cases()))
def test_a_model_saved_and_loaded_gives_the_same_samples(tmp_path, prediction, process):
    model = make(prediction, process)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.hash == model.hash
    assert again.sampling == model.sampling
    assert again.trained == model.trained
    one, other = (m.sample(5, label="b", guidance=2.0, seed=4) for m in (model, again))
    assert torch.equal(one.tensor, other.tensor)
    assert torch.isfinite(one.tensor).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_saved_and_loaded(tmp_path, network):
    model = make(network=network, shape=(1, 6, 6) if network in ("unet", "dit") else (2,))
    model.save(tmp_path / "model")
    assert torch.equal(model.sample(3, label=0).tensor, load(tmp_path / "model").sample(3, label=0).tensor)


@pytest.mark.parametrize("sampler", sorted(samplers))
def test_sample_k_is_sample_k_alone_and_in_any_batch(sampler):
    model = make()
    whole = model.sample(7, label=1, sampler=sampler, seed=5).tensor
    pairs = model.sample(7, label=1, sampler=sampler, seed=5, batch_size=2).tensor
    alone = model.sample(1, label=1, sampler=sampler, seed=5, first=4).tensor
    # Products of another batch round otherwise; where steps follow from an error, that moves the ends within its tolerance.
    close = {"rtol": 1e-3, "atol": 1e-3} if sampler == "adaptive" else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(whole, pairs, **close)
    torch.testing.assert_close(whole[4:5], alone, **close)
    assert not torch.allclose(whole, model.sample(7, label=1, sampler=sampler, seed=6).tensor)


def test_a_learned_variance_is_used(tmp_path):
    model = make("noise", "linear", variance=True)
    model.save(tmp_path / "model")
    learned = load(tmp_path / "model").sample(4, sampler={"name": "ddpm", "variance": "learned"}, steps=8)
    fixed = model.sample(4, sampler={"name": "ddpm", "variance": "posterior"}, steps=8)
    assert torch.isfinite(learned.tensor).all()
    assert not torch.allclose(learned.tensor, fixed.tensor)


def test_previews_begin_with_noise_and_end_with_the_sample():
    model = make()
    seen = list(model.previews(3, label="a", seed=2))
    assert [preview.step for preview in seen] == [0, 1, 2, 3, 4]
    assert [preview.t for preview in seen] == [1.0, 0.75, 0.5, 0.25, 0.0]
    torch.testing.assert_close(seen[-1].x.float(), model.sample(3, label="a", seed=2).tensor)


def test_labels_may_differ_within_a_batch_and_none_asks_for_nothing():
    model = make()
    mixed = model.sample(4, label=["a", None, 1, "b"], seed=1).tensor
    for k, label in enumerate(["a", None, "b", "b"]):
        alone = model.sample(1, label=[label], seed=1, first=k).tensor
        torch.testing.assert_close(mixed[k : k + 1], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadOption, match="got 2"):
        model.sample(4, label=["a", "b"])


def test_words_are_refused_by_a_model_without_them():
    with pytest.raises(BadOption, match="without words"):
        make().sample(1, prompt="a cat")


def test_saving_over_a_model_leaves_one_whole_model(tmp_path):
    first, second = make(), make("v")
    first.save(tmp_path / "model")
    second.save(tmp_path / "model")
    assert len(list((tmp_path / "model").iterdir())) == 2
    assert load(tmp_path / "model").hash == second.hash


def test_loading_never_runs_code_from_a_file(tmp_path):
    make().save(tmp_path / "model")
    file = tmp_path / "model" / "model.yaml"
    text = file.read_text()
    file.write_text(text.replace("format: 1", f"format: !!python/object/apply:os.mkdir ['{tmp_path}/ran']"))
    with pytest.raises(ModelFolderError):
        load(tmp_path / "model")
    assert not (tmp_path / "ran").exists()

    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "ran"),)

    file.write_text(text)
    next((tmp_path / "model").glob("*.safetensors")).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelFolderError):
        load(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_a_blueprint_describes_itself():
    blueprint = make("noise", "cosine", "unet", (3, 8, 8)).blueprint
    assert Blueprint.of(blueprint.describe()) == blueprint


def test_numbers_and_labels_of_numpy_and_torch_are_taken_and_stand_in_the_recipe_as_plain_ones(tmp_path):
    model = make()
    plain = model.sample(2, label=[0, 1], seed=3, steps=2, guidance=2.0)
    for label in (np.array([0, 1]), torch.tensor([0, 1]), [np.int64(0), 1], range(2)):
        made = model.sample(np.int64(2), label=label, seed=np.int64(3), steps=np.int32(2), guidance=np.float64(2))
        assert torch.equal(made.tensor, plain.tensor)
        assert made.recipe == plain.recipe
        made.save(tmp_path / "made.npz")
    assert model.sample(2, label=np.int64(1)).recipe["label"] == 1


@pytest.mark.parametrize(
    "wrong",
    [{"n": 2.0}, {"seed": None}, {"seed": 1.5}, {"steps": "2"}, {"first": -1}, {"first": 2**63}, {"batch_size": 0.5},
     {"label": 1.0}, {"label": [0.5, 1]}, {"label": object()}],
)  # fmt: skip
def test_what_is_no_whole_number_is_refused(wrong):
    with pytest.raises(BadOption, match=f"^{next(iter(wrong))}: "):
        make().sample(**{"n": 2, **wrong})


def test_a_recipe_that_was_changed_by_hand_is_refused():
    model = make()
    recipe = dict(model.sample(2, steps=2).recipe)
    for key in ("n", "first", "seed", "steps", "sampler", "grid", "guidance", "batch_size", "model", "label"):
        for value in (None, "x", [], {}, 1.5, -1):
            with suppress(UnnoiseError):
                model.replay({**recipe, key: value})
        with pytest.raises(DataError, match=key):
            model.replay({name: each for name, each in recipe.items() if name != key})


def test_a_large_number_of_samples_is_made_in_batches_that_fit_into_memory():
    assert make().sample(40_000, steps=1).recipe["batch_size"] == 32_768


def test_a_model_with_any_letters_is_read_in_any_locale(tmp_path):
    make(labels=("é", "日本")).save(tmp_path / "model")
    code = f"from unnoise import load; load({str(tmp_path / 'model')!a}).condition({'日本'!a}, 1)"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], env=plain, check=False).returncode == 0


def test_times_may_be_given_as_words_and_then_say_how_many_steps_there_are():
    model = make()
    typed, listed = model.sample(3, grid="1, 0.5,2e-1, 0"), model.sample(3, grid=[1.0, 0.5, 0.2, 0.0], steps=3)
    assert typed.recipe["steps"] == 3
    assert typed.recipe["grid"] == [1.0, 0.5, 0.2, 0.0]
    assert torch.equal(typed.tensor, listed.tensor)
    with pytest.raises(BadOption, match="make 3 steps, and 5"):
        model.sample(3, grid="1,0.5,0.2,0", steps=5)
    with pytest.raises(BadOption, match="fall"):
        model.sample(3, grid="1,0.2,0.5,0")
    with pytest.raises(UnnoiseError, match="karas"):
        model.sample(3, grid="karas")


def test_a_text_that_only_looks_like_times_is_the_name_of_no_grid():
    for text in ("e,e", "1,", "a,b"):
        with pytest.raises(UnnoiseError, match="grid"):
            make().sample(1, grid=text)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", {"name": "ddim", "eta": 1.0}])
def test_a_blend_leads_from_one_sample_to_another_and_is_replayed(sampler, tmp_path):
    model = make()
    ask = {"sampler": sampler, "steps": 6, "seed": 1}

    def one(first=1, **more):
        return model.sample(2, first=first, **{**ask, **more}).tensor

    def at(share, shift=0):
        return one(blend={"seed": 5, "share": share, "shift": shift})

    assert torch.equal(at(0.0), one())
    assert torch.equal(at(1.0), one(seed=5))
    assert torch.equal(at(1.0, shift=1), one(first=2, seed=5))
    far = [float((at(share) - one()).norm()) for share in (0.02, 0.1, 0.3)]
    assert 0 < far[0] < far[1] < far[2]
    made = model.sample(3, blend={"seed": 5}, batch_size=2, **ask)
    assert made.recipe["blend"] == {"seed": 5, "share": 0.2, "shift": 0}
    made.save(tmp_path / "varied.npz")
    assert torch.equal(model.replay(read_recipe(tmp_path / "varied.npz")).tensor, made.tensor)


def test_noise_is_not_blended_with_a_sample_that_there_is_none_of():
    with pytest.raises(BadOption, match="sample 0 would be mixed with sample -1"):
        make().sample(1, blend={"seed": 5, "shift": -1})
    with pytest.raises(BadOption, match=r"blend\.share: must be at most 1"):
        make().sample(1, blend={"seed": 5, "share": 1.5})
