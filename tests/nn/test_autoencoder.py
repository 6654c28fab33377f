"""The halves of the autoencoder against diffusers' own, weight by weight."""

import re

import pytest
import torch

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.autoencoder import Autoencoder, AutoencoderConfig, Decoder, Encoder
from unnoise.precision import lower

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

SMALL = AutoencoderConfig(width=16, multipliers=(1, 2, 3), blocks=1, groups=4)


def peer(config):
    """diffusers' autoencoder with the same options."""
    from diffusers import AutoencoderKL

    levels = len(config.multipliers)
    return AutoencoderKL(
        latent_channels=config.latent_channels, layers_per_block=config.blocks, norm_num_groups=config.groups,
        block_out_channels=tuple(config.widths), mid_block_add_attention=config.attention,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        use_quant_conv=config.mixes, use_post_quant_conv=config.mixes,
    )  # fmt: skip


NAMES = (
    (r"^quant_conv", "encoder.mix"),
    (r"^post_quant_conv", "decoder.mix"),
    (r"conv_norm_out", "norm"),
    (r"\.conv_in\.", ".enter."),
    (r"\.conv_out\.", ".leave."),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.\3"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"downsamples.\1"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"upsamples.\1"),
    (r"norm1", "norm_in"),
    (r"norm2", "norm_out"),
    (r"conv1", "conv_in"),
    (r"conv2", "conv_out"),
    (r"conv_shortcut", "skip"),
    (r"group_norm", "norm"),
    (r"to_out\.0", "project_out"),
)  # each pattern is tried on what the ones before have made


def renamed(values, attention=True):
    """Tensors of diffusers by our names; queries, keys and values are one matrix of ours."""
    middle = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 1 + attention}
    found = {}
    for name, value in values.items():
        name = re.sub(r"mid_block\.(\w+\.\d)", lambda match: f"middle.{middle[match[1]]}", name)
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        found[name] = value
    for name in [name for name in found if ".to_q." in name]:
        parts = [found.pop(name.replace(".to_q.", f".to_{part}.")) for part in "qkv"]
        found[name.replace("to_q", "project_in")] = torch.cat(parts)
    return found


def both(config):
    """Their autoencoder, with no weight at zero, and ours with its weights."""
    torch.manual_seed(0)
    theirs = peer(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    ours = torch.nn.ModuleDict({"encoder": Encoder(config=config), "decoder": Decoder(config=config)})
    ours.load_state_dict(renamed(theirs.state_dict(), config.attention))
    return theirs, ours


@pytest.mark.parametrize("whole", [True, False], ids=["with attention and mixing", "without"])
def test_both_halves_and_their_gradients_are_those_of_diffusers(whole):
    config = AutoencoderConfig(**{**vars(SMALL), "attention": whole, "mixes": whole})
    theirs, ours = both(config)
    x, z = torch.randn(2, 3, 23, 16), torch.randn(2, 4, 5, 7)
    moments, made = theirs._encode(x), theirs.decode(z).sample
    found, remade = ours["encoder"](x), ours["decoder"](z)
    assert moments.shape == (2, 8, 5, 4)
    torch.testing.assert_close(found, moments, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(remade, made, rtol=1e-5, atol=1e-5)
    pull, push = torch.randn_like(moments), torch.randn_like(made)
    torch.autograd.backward([moments, made], [pull, push])
    torch.autograd.backward([found, remade], [pull, push])
    gradients = renamed({name: p.grad for name, p in theirs.named_parameters()}, whole)
    for name, parameter in ours.named_parameters():
        distance = (parameter.grad - gradients[name]).norm()
        assert distance < 1e-5 * gradients[name].norm() + 1e-5, name


def test_the_default_is_the_autoencoder_of_stable_diffusion():
    with torch.device("meta"):
        ours = torch.nn.ModuleDict({"encoder": Encoder(), "decoder": Decoder()})
        theirs = peer(AutoencoderConfig())
    assert sum(p.numel() for p in ours.parameters()) == 83_653_863
    expected = {name: value.shape for name, value in renamed(theirs.state_dict()).items()}
    assert {name: p.shape for name, p in ours.named_parameters()} == expected


def test_in_bfloat16_they_are_near_the_float32_of_diffusers():
    theirs, ours = both(SMALL)
    lower(ours, torch.bfloat16)
    x, z = torch.randn(2, 3, 24, 16), torch.randn(2, 4, 5, 8)
    with torch.no_grad():
        pairs = [
            (ours["encoder"](x.bfloat16()), theirs._encode(x)),
            (ours["decoder"](z.bfloat16()), theirs.decode(z).sample),
        ]
    for found, expected in pairs:
        assert found.dtype == torch.bfloat16
        assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_data_of_any_dimension_comes_back_in_its_size(dims):
    encoder, decoder = Encoder(dims, 2, SMALL), Decoder(dims, 2, SMALL)
    x = torch.randn(1, 2, *(8, 12, 4)[:dims])
    mean, log_variance = encoder(x).chunk(2, dim=1)
    assert mean.shape == log_variance.shape == (1, 4, *(2, 3, 1)[:dims])
    assert decoder(mean).shape == x.shape
    assert len(encoder.checkpointed_blocks()) == 3 + 3
    assert len(decoder.checkpointed_blocks()) == 3 + 6


@pytest.mark.parametrize("shape", [(2, 3, 16), (2, 1, 16, 16), (2, 3, 3, 16)], ids=str)
def test_data_of_another_shape_is_refused(shape):
    wanted = f"expected x of shape (B, 3, size, size) with sizes from 4, got {shape}"
    with pytest.raises(ShapeError, match=re.escape(wanted)):
        Encoder(config=SMALL)(torch.zeros(shape))


def test_an_autoencoder_has_a_level():
    with pytest.raises(BadOption, match="multipliers: must have at least one level, got none"):
        AutoencoderConfig(multipliers=())


@pytest.mark.parametrize("mixes", [True, False])
def test_the_latents_that_are_drawn_begin_near_their_means(mixes):
    module = Autoencoder(2, 3, AutoencoderConfig(**{**vars(SMALL), "mixes": mixes}))
    mean, std = module.moments(torch.rand(4, 3, 16, 16) * 2 - 1)
    assert std.mean() < 0.1
    assert std.mean() < mean.std()
