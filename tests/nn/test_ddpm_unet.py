"""The U-Net of DDPM against diffusers' own, weight by weight."""

import re

import pytest
import torch

from unnoise.errors import IncompatibleParts
from unnoise.nn.ddpm_unet import DDPMUNet, DDPMUNetConfig
from unnoise.nn.embedding import sinusoidal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

SMALL = DDPMUNetConfig(width=32, multipliers=(1, 2, 2), blocks=1, attention=(1,), groups=8)


def peer(config, size, num_classes=0):
    """diffusers' network with the same options."""
    from diffusers import UNet2DModel

    levels = range(len(config.multipliers))
    heads = config.head_channels or None
    return UNet2DModel(
        sample_size=size, layers_per_block=config.blocks, norm_num_groups=config.groups, attention_head_dim=heads,
        block_out_channels=tuple(config.width * multiplier for multiplier in config.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if config.attends(i) else "DownBlock2D" for i in levels),
        up_block_types=tuple("AttnUpBlock2D" if config.attends(i) else "UpBlock2D" for i in reversed(levels)),
        norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        num_class_embeds=num_classes + 1 if num_classes else None,
    )  # fmt: skip


NAMES = (
    (r"time_embedding\.linear_1", "embedding.enter"),
    (r"time_embedding\.linear_2", "embedding.leave"),
    (r"class_embedding", "embedding.label"),
    (r"conv_norm_out", "norm"),
    (r"^conv_in\.", "enter."),
    (r"^conv_out\.", "leave."),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.\3.residual"),
    (r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.\3.attention"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"downsamples.\1"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"upsamples.\1"),
    (r"mid_block\.resnets\.(\d+)", r"middle.\1.residual"),
    (r"mid_block\.attentions\.0", "middle.0.attention"),
    (r"residual\.norm1", "residual.norm_in"),
    (r"residual\.norm2", "residual.norm_out"),
    (r"residual\.conv1", "residual.conv_in"),
    (r"residual\.conv2", "residual.conv_out"),
    (r"residual\.time_emb_proj", "residual.project"),
    (r"residual\.conv_shortcut", "residual.skip"),
    (r"attention\.group_norm", "attention.norm"),
    (r"attention\.to_out\.0", "attention.project_out"),
)  # each pattern is tried on what the ones before have made


def renamed(values):
    """Tensors of diffusers by our names; queries, keys and values are one matrix of ours."""
    found = {}
    for name, value in values.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        found[name] = value
    for name in [name for name in found if ".to_q." in name]:
        parts = [found.pop(name.replace(".to_q.", f".to_{part}.")) for part in "qkv"]
        found[name.replace("to_q", "project_in")] = torch.cat(parts)
    return found


def both(config, size, num_classes=0):
    """Their network, with no weight at zero, and ours with its weights."""
    torch.manual_seed(0)
    theirs = peer(config, size, num_classes)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    ours = DDPMUNet((3, size, size), None, num_classes, config)
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours


@pytest.mark.parametrize("head_channels", [0, 16])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_outputs_and_gradients_are_those_of_diffusers(head_channels, num_classes):
    config = DDPMUNetConfig(
        width=32, multipliers=(1, 2, 2), blocks=1, attention=(1,), groups=8, head_channels=head_channels
    )
    theirs, ours = both(config, 16, num_classes)
    x, levels, pull = torch.randn(4, 3, 16, 16), torch.tensor([0.0, 1.0, 500.0, 999.0]), torch.randn(4, 3, 16, 16)
    labels = torch.tensor([0, 5, 2, 4]) if num_classes else None
    expected = theirs(x, levels, class_labels=labels).sample
    found = ours(x, levels, None if labels is None else {"label": labels})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward(pull)
    found.backward(pull)
    gradients = renamed({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        distance = (parameter.grad - gradients[name]).norm()
        assert distance < 1e-5 * gradients[name].norm() + 1e-5, name


def test_the_default_is_the_network_for_cifar10():
    config = DDPMUNetConfig()
    theirs, ours = both(config, 32)
    assert sum(p.numel() for p in ours.parameters()) == 35_746_307
    x, levels = torch.randn(2, 3, 32, 32), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, levels), theirs(x, levels).sample, rtol=1e-5, atol=1e-5)


def test_frequencies_run_to_the_end():
    found = sinusoidal(torch.tensor([1.0]), 8, to_the_end=True)[0]
    frequencies = torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4], dtype=torch.float64)
    torch.testing.assert_close(found.double(), torch.cat([frequencies.sin(), frequencies.cos()]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 16), (2, 9), (3, 7, 13), (4, 5, 5), (3, 4, 6, 6)], ids=str)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape):
    network = DDPMUNet(shape, config=SMALL)
    out = network(torch.randn(2, *shape), torch.tensor([3.0, 700.0]))
    assert out.shape == (2, *shape)
    assert not out.any()  # the last layer is zero until trained


@pytest.mark.parametrize("multipliers", [(1,), (2, 1), (1, 2, 3)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_any_levels_fit_together(multipliers, blocks):
    config = DDPMUNetConfig(width=9, multipliers=multipliers, blocks=blocks, attention=(-1,))
    network = DDPMUNet((2, 11, 9), (4, 11, 9), 3, config)
    assert network(torch.randn(2, 2, 11, 9), torch.zeros(2)).shape == (2, 4, 11, 9)
    assert len(network.checkpointed_blocks()) == len(multipliers) * (2 * blocks + 1) + 2


def test_data_smaller_than_the_stride_is_refused():
    with pytest.raises(IncompatibleParts, match="size 3 x 8 is smaller than 4, the stride of 3 levels"):
        DDPMUNet((1, 3, 8), config=SMALL)
