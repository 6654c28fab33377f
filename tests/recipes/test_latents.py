"""Models that work on latents: the codec is found by its path, and stands in the model's own folder."""

import shutil

import numpy as np
import pytest
import torch

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.errors import BadOption, IncompatibleParts, ModelFolderError, RunFolderError
from unnoise.model import Model
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.recipes.codec_folder import load_codec, save_codec
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

SMALL = AutoencoderConfig(width=8, multipliers=(1, 2), blocks=1, latent_channels=2, attention=False)
NETWORK = {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1}
TRAINING = {"steps": 4, "batch_size": 4, "validation_size": 16, "sample_every": 0, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures and an autoencoder that nobody has trained."""
    folder = tmp_path_factory.mktemp("latents")
    x = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.savez(folder / "pictures.npz", x=x.numpy(), labels=np.arange(40) % 2)
    codec = AutoencoderCodec.untrained((3, 8, 8), SMALL, IdentityCodec.pixels()).whitened(x)
    save_codec(folder / "ae", codec, Spec("image", (3, 8, 8)), {"steps": 0})
    return folder


def recipe(place, **more):
    values = {
        "data": {"name": "array", "path": str(place / "pictures.npz")}, "network": NETWORK, "training": TRAINING,
        "codec": {"name": "autoencoder", "path": str(place / "ae"), "latents": "none"}, "denoiser": {"name": "v"},
    }  # fmt: skip
    return load_recipe(values, **more)


def trained(checked, folder):
    run = Run(checked, folder)
    for _ in run.events():
        pass
    return run.model()


def test_an_autoencoder_comes_back_from_its_folder(place):
    codec = load_codec(place / "ae")
    assert codec.network == SMALL
    x = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert codec.encode(x).shape == (1, 2, 4, 4)
    assert load_codec(place / "ae").hash == codec.hash
    assert len(codec.hash) == 64


def test_a_model_of_latents_is_trained_and_samples_without_the_autoencoders_folder(place, tmp_path):
    shutil.copytree(place / "ae", tmp_path / "ae")
    checked = recipe(place, codec__path=str(tmp_path / "ae"))
    model = trained(checked, tmp_path / "run")
    assert model.blueprint.input_shape == (2, 4, 4)
    made = model.sample(3, label="1", seed=2)
    shutil.rmtree(tmp_path / "ae")
    again = Model.load(tmp_path / "run")
    assert again.hash == model.hash
    assert torch.equal(again.sample(3, label="1", seed=2).tensor, made.tensor)
    assert load_codec(tmp_path / "run").hash == load_codec(place / "ae").hash


def test_a_damaged_model_is_made_again_from_the_checkpoint_with_its_codec(place, tmp_path):
    model = trained(recipe(place), tmp_path / "run")
    (tmp_path / "run" / "model" / "model.yaml").unlink()
    again = Model.load(tmp_path / "run")
    assert any("made again" in note for note in again.notes)
    assert torch.equal(again.sample(2).tensor, model.sample(2).tensor)


def test_another_autoencoder_in_the_place_of_the_first_is_not_gone_on_with(place, tmp_path):
    shutil.copytree(place / "ae", tmp_path / "ae")
    checked = recipe(place, codec__path=str(tmp_path / "ae"))
    run = Run(checked, tmp_path / "run")
    for _ in run.events(lambda: run.state.step >= 2):
        pass
    assert Run(checked, tmp_path / "run").state.step == 2
    x = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    other = AutoencoderCodec.untrained((3, 8, 8), SMALL, IdentityCodec.pixels(), seed=1).whitened(x)
    save_codec(tmp_path / "ae", other, Spec("image", (3, 8, 8)), {"steps": 0})
    with pytest.raises(RunFolderError) as refused:
        Run(checked, tmp_path / "run")
    told = f"codec.path holds another autoencoder than the one that the run in {tmp_path / 'run'} began with"
    assert str(refused.value) == f"{told}: put that one back, or use another --out"
    shutil.rmtree(tmp_path / "ae")
    shutil.copytree(place / "ae", tmp_path / "ae")
    assert Run(checked, tmp_path / "run").state.step == 2


def test_training_goes_on_from_a_model_of_latents(place, tmp_path):
    trained(recipe(place), tmp_path / "base")
    values = {"data": {"name": "array", "path": str(place / "pictures.npz")}, "training": TRAINING}
    run = Run(load_recipe(values, start__model=str(tmp_path / "base")), tmp_path / "more")
    assert run.blueprint.codec.hash == load_codec(place / "ae").hash


def test_what_is_no_autoencoder_and_what_does_not_fit_is_told(place, tmp_path):
    with pytest.raises(ModelFolderError, match=r"codec\.path: there is no model at .*nowhere"):
        Run(recipe(place, codec__path=str(place / "nowhere")), tmp_path / "run")
    with pytest.raises(
        ModelFolderError, match=r"it comes first: unnoise train shapes-autoencoder --out .*/shapes-autoencoder"
    ):
        Run(recipe(place, codec__path=str(place / "shapes-autoencoder")), tmp_path / "run")
    with pytest.raises(BadOption, match=r"give the folder of a trained autoencoder, such as codec\.path=runs/ae"):
        Run(recipe(place, codec__path=""), tmp_path / "run")
    with pytest.raises(
        ModelFolderError, match=r"holds an autoencoder, which makes no samples by itself: train a model with"
    ):
        Model.load(place / "ae")
    with pytest.raises(
        IncompatibleParts, match=r"latents of shape \(2, 4, 4\) of data of shape \(3, 8, 8\), which the network"
    ):
        Run(recipe(place, network__multipliers=[1, 1, 1, 1]), tmp_path / "run")
    np.save(tmp_path / "grey.npy", np.zeros((4, 8, 8), dtype=np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None])
    with pytest.raises(IncompatibleParts, match=r"of 3 channels in 2 dimensions, and the data has shape \(1, 8, 8\)"):
        Run(recipe(place, data__path=str(tmp_path / "grey.npy")), tmp_path / "run")
    trained(load_recipe("spiral", training__steps=1, training__sample_every=0), tmp_path / "points")
    with pytest.raises(
        ModelFolderError, match="holds no autoencoder: it is a model that works on its data as they are"
    ):
        load_codec(tmp_path / "points")
