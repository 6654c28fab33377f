"""`unnoise encode` and `unnoise reconstruct`: latents of a data set once, and how well pictures come back."""

import json

import numpy as np
import pytest
import torch

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.evaluation.reconstruction import psnr
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.randomness import address, normal_like
from unnoise.recipes.codec_folder import load_codec, save_codec
from unnoise.recipes.recipe import load_recipe

SMALL = AutoencoderConfig(width=4, multipliers=(1, 1), blocks=1, latent_channels=2, attention=False)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pictures, an autoencoder that nobody trained, and a recipe that works on its latents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    x = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.savez("pictures.npz", x=x.numpy())
    codec = AutoencoderCodec.untrained((3, 8, 8), SMALL, IdentityCodec.pixels())
    save_codec("ae", codec.whitened(x), Spec("image", (3, 8, 8)), {"steps": 0})
    values = {
        "data": {"name": "array", "path": "pictures.npz"}, "network": {"name": "unet", "width": 8, "multipliers": [1]},
        "codec": {"name": "autoencoder", "path": "ae"}, "denoiser": {"name": "v"},
    }  # fmt: skip
    (tmp_path / "latent.yaml").write_text(load_recipe(values).yaml())
    return tmp_path


def test_a_data_set_is_encoded_once(place, unnoise, refused):
    said = unnoise("encode", "latent.yaml", "-o", "kept", "--device", "cpu")
    assert said.code == 0
    assert "40 samples, 40 encoded now" in said.out
    assert "to use     codec.latents=kept" in said.out
    assert "40 samples, 0 encoded now" in unnoise("encode", "ae", "--data", "pictures.npz", "-o", "kept").out
    assert "40 samples with mirror images, 40" in unnoise("encode", "ae", "--data", "pictures.npz", "--flips").out
    assert "give --data, and no options" in refused("encode", "ae")
    assert "expected a recipe whose codec is an autoencoder" in refused("encode", "spiral")
    assert "know no mirror images" in refused("encode", "ae", "--data", "pictures.npz", "--flips", "-o", "kept")


def test_an_autoencoder_is_judged_by_pictures(place, unnoise, refused):
    said = unnoise("reconstruct", "ae", "--data", "pictures.npz", "--no-perceptual", "-n", 20, "--json")
    assert said.code == 0
    values = json.loads(said.out)
    codec, x = load_codec("ae"), torch.from_numpy(np.load("pictures.npz")["x"])[::2]
    back = codec.decode(codec.encode(x)).round().clamp(0, 255)
    assert values["psnr"]["value"] == pytest.approx(float(psnr(back, x).mean()), rel=1e-6)
    z = codec.encode(x)
    z += 0.2 * normal_like(address(0, "latents under noise"), range(20), z)
    noisy = float(psnr(codec.decode(z).round().clamp(0, 255), x).mean())
    assert values["psnr with noise of 0.2"]["value"] == pytest.approx(noisy, rel=1e-6)
    assert values["psnr"]["low"] < values["psnr"]["value"] < values["psnr"]["high"]
    assert (values["n"], values["values_to_one"], values["latents"]) == (20, 6, [2, 4, 4])
    assert (place / "ae" / "reconstruction" / "worst.png").is_file()
    assert json.loads((place / "ae" / "reconstruction" / "reconstruction.json").read_text()) == values
    told = unnoise("reconstruct", "ae", "--data", "pictures.npz", "--no-perceptual", "-o", "judged").out
    assert "psnr " in told
    assert "judged by               40 pictures that it did not learn from" in told
    assert "says what it was trained on: give --data" in refused("reconstruct", "ae")
    np.save("points.npy", np.zeros((5, 2), np.float32))
    assert "expected pictures to judge an autoencoder by" in refused("reconstruct", "ae", "--data", "points.npy")


def test_info_tells_what_an_autoencoder_is(place, unnoise):
    told = unnoise("info", "ae").out
    assert "image of shape (3, 8, 8) as latents of shape (2, 4, 4)" in told
    assert load_codec("ae").hash[:12] in told
    assert json.loads(unnoise("info", "ae", "--json").out)["hash"] == load_codec("ae").hash
