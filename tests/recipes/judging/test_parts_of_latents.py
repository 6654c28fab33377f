"""What the error of a model of latents is made of: its codec is a part, and blamed where it is spoiled."""

import numpy as np
import pytest
import torch

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.model import Model
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.recipes.codec_folder import save_codec
from unnoise.recipes.judging.split import error_parts
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

pytestmark = pytest.mark.usefixtures("quick_features")

SMALL = AutoencoderConfig(width=8, multipliers=(1, 1), blocks=1, latent_channels=4, attention=False)
ASKED = {"n": 60, "steps": 4, "fine": 8, "guidance": 2.0, "metric": "kid"}


def learned(codec, x, steps=250):
    """The codec after some steps on pictures as numbers: it gives them back almost as they are."""
    module = codec.autoencoder.train().requires_grad_(True)
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    pixels = codec.data.encode(x)
    for step in range(steps):
        batch = pixels[torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:32]]
        optimizer.zero_grad()
        (module(batch) - batch).square().mean().backward()
        optimizer.step()
    return codec.holding(module).whitened(x)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of the latents of small digits that has learned a little, with a third of them held out."""
    folder = tmp_path_factory.mktemp("latents")
    data = load_recipe("digits").data.load()
    np.savez(folder / "digits.npz", x=data.x[:600].numpy(), labels=data.labels[:600].numpy())
    codec = AutoencoderCodec.untrained((1, 8, 8), SMALL, IdentityCodec.pixels())
    save_codec(folder / "ae", learned(codec, data.x[:600]), Spec("image", (1, 8, 8)), {"steps": 250})
    values = {
        "data": {"name": "array", "path": str(folder / "digits.npz")}, "denoiser": {"name": "v"},
        "network": {"name": "unet", "width": 8, "multipliers": [1], "blocks": 1},
        "codec": {"name": "autoencoder", "path": str(folder / "ae"), "latents": "none"},
        "training": {
            "steps": 20, "batch_size": 32, "lr": 3e-3, "validation_size": 16, "sample_every": 0,
            "validation_share": 0.3,
        },
    }  # fmt: skip
    for _ in Run(load_recipe(values), folder / "run").events():
        pass
    return folder / "run"


def spoiled(run):
    """The same model with noise on the weights of its decoder."""
    model = Model.load(run)
    generator = torch.Generator().manual_seed(1)
    kernels = [each for each in model.blueprint.codec.autoencoder.decoder.parameters() if each.ndim > 1]
    with torch.no_grad():
        for kernel in kernels:
            kernel += 1.5 * kernel.std() * torch.randn(kernel.shape, generator=generator)
    return model


def test_the_codec_is_a_part_and_no_fault_of_its_own_where_it_is_good(run, tmp_path):
    found = error_parts(run, out=tmp_path / "out", **ASKED)
    assert [part.name for part in found.parts] == ["codec", "denoiser", "guidance", "steps"]
    values = {name: each.result.estimates["kid"].value for name, each in found.judged.items()}
    codec, denoiser, *_ = found.parts
    assert codec.value == values["codec"] - found.floor.value
    assert denoiser.value == values["no guidance"] - values["codec"]
    whole = found.floor.value + sum(part.value for part in found.parts)
    assert whole == pytest.approx(values["as asked"], rel=1e-9)
    assert denoiser.value > 5 * abs(codec.value)
    assert found.first is denoiser
    assert (tmp_path / "out" / "index.html").read_text().count("<img") == 6  # real, four kinds of samples, the curve


def test_a_codec_that_was_spoiled_on_purpose_is_to_be_mended_first(run, tmp_path):
    found = error_parts(spoiled(run), out=tmp_path / "out", **ASKED)
    codec, denoiser, *_ = found.parts
    assert codec.sure
    assert codec.value > 2 * abs(denoiser.value)
    mend = "Mend the codec first: train the autoencoder longer, or give it more channels of latents."
    assert found.sentence == mend
    assert mend in (tmp_path / "out" / "index.html").read_text()
