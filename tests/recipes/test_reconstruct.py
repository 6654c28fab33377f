"""The report on an autoencoder: the worst pictures are the ones that are shown, and the perceptual distance is there unasked."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Dataset, Spec
from unnoise.evaluation.features.own import OwnFeatures
from unnoise.evaluation.perceptual import PerceptualDistance
from unnoise.evaluation.reconstruction import psnr
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.pictures.pairs import closest_pairs
from unnoise.recipes.codec_folder import load_codec, save_codec
from unnoise.recipes.reconstruct import WORST, reconstruct

pytestmark = pytest.mark.usefixtures("quick_features")

SMALL = AutoencoderConfig(width=8, multipliers=(1, 1), blocks=1, latent_channels=2, attention=False)
SPEC = Spec("image", (3, 8, 8))
NOISE = range(3, 3 + 4 * WORST, 4)
"""Which of the pictures are of pure noise; all others are smooth."""


def pictures():
    """60 pictures, of which 12 cannot be told in a sixth of their numbers."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 3, 2, 2, generator=generator) * 255
    x = torch.nn.functional.interpolate(corners, 8, mode="bilinear", align_corners=True)
    x[NOISE] = torch.rand(len(NOISE), 3, 8, 8, generator=generator) * 255
    return x.round().to(torch.uint8)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """What is told of an autoencoder that has learned the smooth pictures, as nobody asked for anything special."""
    folder = tmp_path_factory.mktemp("reconstruct")
    x = pictures()
    np.savez(folder / "pictures.npz", x=x.numpy())
    codec = AutoencoderCodec.untrained((3, 8, 8), SMALL, IdentityCodec.pixels())
    module = codec.autoencoder.train().requires_grad_(True)
    smooth = codec.data.encode(x[[i for i in range(60) if i not in NOISE]])
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        (module(smooth) - smooth).square().mean().backward()
        optimizer.step()
    save_codec(folder / "ae", codec.holding(module).whitened(x), SPEC, {"steps": 200})
    return folder, reconstruct(folder / "ae", str(folder / "pictures.npz"))


def shows(sheet, picture):
    """Whether a picture stands on a sheet, enlarged twelve times."""
    sheet, block = np.asarray(sheet.convert("RGB")), np.kron(picture.permute(1, 2, 0).numpy(), np.ones((12, 12, 1)))
    side = len(block)
    corners = np.argwhere((sheet[: 1 - side, : 1 - side] == block[0, 0]).all(-1))
    return any((sheet[y : y + side, x : x + side] == block).all() for y, x in corners)


def test_the_worst_pictures_are_shown_and_no_others(judged, tmp_path):
    folder, found = judged
    x = pictures()
    noise = torch.tensor(list(NOISE))
    assert sorted(found.psnr.argsort()[:WORST].tolist()) == noise.tolist()
    sheet = Image.open(found.save(tmp_path / "report") / "worst.png")
    assert [i for i in range(len(x)) if shows(sheet, x[i])] == noise.tolist()
    # From the worst to the best of them, each beside what it came back as and over how well that is.
    codec = load_codec(folder / "ae")
    back = codec.decode(codec.encode(x)).round().clamp(0, 255).to(torch.uint8)
    ratios = psnr(back.double(), x.double())
    order = noise[ratios[noise].argsort()]
    captions = [f"{float(each):.1f} dB" for each in ratios[order]]
    expected = closest_pairs(x[order], back[order], captions, headings=("real", "came back"))
    assert np.array_equal(np.asarray(sheet), np.asarray(expected))


def test_a_perceptual_distance_by_features_of_ones_own_is_told_unasked(judged, tmp_path):
    folder, found = judged
    x = pictures()
    codec = load_codec(folder / "ae")
    back = codec.decode(codec.encode(x)).round().clamp(0, 255)
    expected = PerceptualDistance(OwnFeatures().prepare(Dataset(x, SPEC)))(back, x.float())
    torch.testing.assert_close(found.perceptual, expected.double(), rtol=1e-4, atol=1e-6)
    assert float(found.perceptual[list(NOISE)].mean()) > 1.5 * float(found.perceptual.mean())
    told = json.loads((found.save(tmp_path / "report") / "reconstruction.json").read_text())
    assert told["perceptual"]["value"] == pytest.approx(float(expected.mean()), rel=1e-4)
    assert told["perceptual"]["low"] < told["perceptual"]["value"] < told["perceptual"]["high"]
    without = reconstruct(folder / "ae", str(folder / "pictures.npz"), perceptual=False)
    assert without.perceptual is None
    assert "perceptual" not in without.values()
    torch.testing.assert_close(without.psnr, found.psnr)
