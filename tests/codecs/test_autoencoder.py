"""The learned space of latents: centred, drawn by address, tiled, and kept in the model's folder."""

import re

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.autoencoder import AutoencoderCodec, posterior_draw
from unnoise.codecs.base import codecs
from unnoise.codecs.identity import IdentityCodec
from unnoise.codecs.tiles import tiled
from unnoise.data.base import Spec
from unnoise.errors import BadOption, DataError, IncompatibleParts, ModelFolderError, ShapeError
from unnoise.model import Model, SamplingSettings
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.nn.base import networks
from unnoise.process.base import schedules

SMALL = AutoencoderConfig(width=8, multipliers=(1, 2, 2), blocks=1, latent_channels=4, attention=False)
SHAPE = (3, 16, 16)


def pictures(n=6, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def untrained(network=SMALL, shape=SHAPE):
    return AutoencoderCodec.untrained(shape, network, IdentityCodec.pixels(), seed=1)


def latent_model(codec=None, network=None):
    codec = codec or untrained().whitened(pictures(64))
    network = networks.build(network or {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1})
    blueprint = Blueprint(
        Spec("image", SHAPE, ("a", "b")), codec, schedules.build("cosine"), "v", 1.0, False, network
    )  # fmt: skip
    return Model(blueprint, blueprint.build(0), SamplingSettings(steps=3))


def test_latents_have_mean_0_and_variance_1_after_whitening():
    codec = untrained().whitened(pictures(64))
    z = codec.encode(pictures(64))
    assert z.dtype == torch.float32
    assert z.shape == (64, *codec.shape(SHAPE)) == (64, 4, 4, 4)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(4), atol=1e-5, rtol=0)


def test_decoding_goes_by_the_latents_as_the_autoencoder_has_them():
    plain = untrained()
    codec = plain.whitened(pictures(64))
    x = pictures()
    torch.testing.assert_close(codec.decode(codec.encode(x)), plain.decode(plain.encode(x)), atol=2e-3, rtol=1e-4)
    expected = 127.5 + 127.5 * plain.autoencoder((x.float() - 127.5) / 127.5)
    torch.testing.assert_close(plain.decode(plain.encode(x)), expected, atol=2e-3, rtol=1e-4)


def test_what_is_drawn_depends_on_seed_and_position_alone_and_has_the_density_that_is_told():
    codec = untrained()
    codec = codec.whitened(pictures(64)).chosen(AutoencoderCodec(posterior="sample"))
    x = pictures(8)
    whole = codec.drawn(x, 3, range(8))
    torch.testing.assert_close(codec.drawn(x[5:], 3, range(5, 8)), whole[5:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(codec.drawn(x, 4, range(8)), whole)
    mean, std = codec.moments(x[:1])
    many = posterior_draw(mean.expand(4000, -1, -1, -1), std.expand(4000, -1, -1, -1), 0, range(4000))
    torch.testing.assert_close(many.mean(0), mean[0], atol=5 * float(std.max()) / 4000**0.5, rtol=0)
    torch.testing.assert_close(many.std(0), std[0], rtol=0.08, atol=0)
    assert torch.equal(codec.chosen(AutoencoderCodec()).drawn(x, 3, range(8)), codec.encode(x))


def test_a_plain_autoencoder_tells_no_variance():
    codec = untrained(AutoencoderConfig(**{**vars(SMALL), "variational": False}))
    mean, std = codec.moments(pictures())
    assert std is None
    assert mean.shape[1] == 4
    assert codec.autoencoder.encoder.mix.weight.shape[0] == 4
    assert torch.equal(codec.chosen(AutoencoderCodec(posterior="sample")).drawn(pictures(), 0, range(6)), mean)


@pytest.mark.parametrize("shape", [(2, 8), (1, 12, 8), (2, 4, 8, 4)], ids=str)
def test_sequences_pictures_and_videos_are_encoded(shape):
    codec = untrained(shape=shape)
    x = torch.randn(3, *shape)
    codec = AutoencoderCodec.untrained(shape, SMALL, IdentityCodec.standardizing(x))
    assert codec.encode(x).shape == (3, *codec.shape(shape))
    assert codec.decode(codec.encode(x)).shape == x.shape


# Tiles


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (17, 40), (3, 33)], ids=str)
@pytest.mark.parametrize("tile", [4, 8, 16])
def test_tiles_give_what_the_whole_gives_where_work_is_local(size, tile):
    x = torch.randn(2, 3, *size, dtype=torch.float64)

    def doubled(part):
        return part.repeat_interleave(2, -1).repeat_interleave(2, -2) ** 2

    seen = []
    found = tiled(lambda part: seen.append(part.shape) or doubled(part), x, tile, leaves=2)
    torch.testing.assert_close(found, doubled(x), rtol=1e-12, atol=1e-12)
    assert max(max(shape[2:]) for shape in seen) <= tile
    back = tiled(lambda part: part[..., ::2, ::2], doubled(x), tile, enters=2)
    torch.testing.assert_close(back, x**2, rtol=1e-12, atol=1e-12)


def test_neighbouring_tiles_are_blended_linearly():
    number = iter(range(2))
    found = tiled(lambda part: torch.full_like(part, next(number)), torch.zeros(1, 1, 12, dtype=torch.float64), 8)
    ramp = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    assert torch.equal(found[0, 0], torch.cat([torch.zeros(4, dtype=torch.float64), ramp, torch.ones(4)]))


def test_a_picture_that_fits_into_a_tile_is_worked_on_whole_and_a_larger_one_comes_near():
    codec = untrained(shape=(3, 64, 64))
    x = pictures(1, 64)
    tiles = {tile: codec.chosen(AutoencoderCodec(tile=tile)) for tile in (0, 16, 12)}
    whole = tiles[0].encode(x)
    assert torch.equal(tiles[16].encode(x), whole)
    assert torch.equal(tiles[16].decode(whole), tiles[0].decode(whole))
    for found, expected in (
        (tiles[12].encode(x), whole),
        (tiles[12].decode(whole) - 127.5, tiles[0].decode(whole) - 127.5),
    ):
        assert found.shape == expected.shape
        assert 0 < (found - expected).square().mean() < 0.15 * expected.square().mean()  # by the normalisations


# In a model


def test_a_model_holds_its_codec_and_needs_no_other_folder(tmp_path):
    model = latent_model()
    made = model.sample(2, label="b", seed=5)
    assert made.tensor.shape == (2, *SHAPE)
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.hash == model.hash
    assert torch.equal(again.sample(2, label="b", seed=5).tensor, made.tensor)
    assert again.blueprint == model.blueprint
    assert {file.name.partition("-")[0] for file in (tmp_path / "model").glob("*.safetensors")} == {"network", "codec"}
    assert "path" not in (tmp_path / "model" / "model.yaml").read_text()


def test_what_the_codec_has_learned_is_part_of_the_models_hash(tmp_path):
    model, codec = latent_model(), untrained().whitened(pictures(64))
    with torch.no_grad():
        codec.autoencoder.decoder.leave.bias += 0.1
    other = latent_model(codec)
    assert other.weights_hash == model.weights_hash
    assert other.hash != model.hash
    assert other.blueprint.codec.hash != model.blueprint.codec.hash
    model.save(tmp_path)
    other.save(tmp_path)  # the files of the first go
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert Model.load(tmp_path).hash == other.hash


def test_a_damaged_codec_is_told(tmp_path):
    latent_model().save(tmp_path)
    (file,) = tmp_path.glob("codec-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFolderError, match=re.escape(f"{file} is damaged: its checksum does not fit")):
        Model.load(tmp_path)
    file.unlink()
    with pytest.raises(ModelFolderError, match=r"is damaged: .*No such file"):
        Model.load(tmp_path)


def test_in_bfloat16_the_codec_computes_so_too_and_what_is_saved_stays_float32():
    model = latent_model()
    low = model.on("cpu", "bf16")
    assert low.blueprint.codec.autoencoder.lowered_to == torch.bfloat16
    assert low.hash == model.hash
    both = [each.sample(4, seed=1).tensor.float() for each in (low, model)]
    assert 0 < (both[0] - both[1]).abs().mean() < 6
    assert low.replay(model.sample(2).recipe).tensor.equal(model.sample(2).tensor)


def test_only_what_is_looked_at_is_decoded(monkeypatch):
    model, calls = latent_model(), []
    decode = AutoencoderCodec.decode
    monkeypatch.setattr(AutoencoderCodec, "decode", lambda self, z: calls.append(len(z)) or decode(self, z))
    model.sample(5, batch_size=3)
    assert calls == [3, 2]
    previews = list(model.previews(2))
    assert len(calls) == 2
    assert previews[1].x.shape == previews[1].denoised.shape == (2, *SHAPE)
    assert len(calls) == 4


# What cannot be


def test_what_does_not_fit_is_told():
    codec = untrained()
    with pytest.raises(IncompatibleParts, match=r"of 3 channels in 2 dimensions, and the data has shape \(1, 16, 16\)"):
        codec.shape((1, 16, 16))
    with pytest.raises(
        IncompatibleParts, match=r"makes 4 x 4 values into one, by which sizes of the data, \(16, 18\), ca"
    ):
        codec.shape((3, 16, 18))
    with pytest.raises(ShapeError, match=r"expected latents of 4 channels in 2 dimensions, got \(1, 3, 4, 4\)"):
        codec.decode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(IncompatibleParts, match=r"not for samples of shape \(5,\)"):
        untrained(shape=(5,))
    deep = {"name": "unet", "width": 8, "multipliers": [1, 1, 1, 1], "blocks": 1}
    with pytest.raises(
        IncompatibleParts, match=r"latents of shape \(4, 4, 4\) of data of shape \(3, 16, 16\), which the network"
    ):
        latent_model(network=deep)
    coarse = {"name": "dit", "width": 16, "depth": 1, "heads": 2, "patch": 8}
    with pytest.raises(
        IncompatibleParts,
        match=r"the codec \(codec\.path\) makes .* give data of size 8 x 8, or a network\.patch of 1 or 2 or 4 "
        r"\(sizes of latents, 4 times as large in the data\)$",
    ):
        latent_model(network=coarse)


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(BadOption, match="centre: expected 1 or 4 numbers, got 3"):
        AutoencoderCodec(centre=(0.0, 0.0, 0.0))
    with pytest.raises(BadOption, match="spread: must be positive"):
        AutoencoderCodec(spread=(0.0,))
    with pytest.raises(BadOption, match=r"give the folder of a trained autoencoder, such as codec\.path=runs/ae"):
        codecs.build("autoencoder").encode(pictures())
    with pytest.raises(ModelFolderError, match="are those of another one: they differ in decoder"):
        AutoencoderCodec(network=SMALL).with_weights({})
    codec = untrained()
    with torch.no_grad():
        codec.autoencoder.encoder.mix.weight[1] = 0
    with pytest.raises(DataError, match="a channel of the latents is the same for all samples"):
        codec.whitened(pictures())
