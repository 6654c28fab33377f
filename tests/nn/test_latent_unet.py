"""The U-Net of latent diffusion against diffusers' own, weight by weight."""

import re

import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.nn.conditions import Context
from unnoise.nn.latent_unet import STABLE_DIFFUSION_1, LatentUNet, LatentUNetConfig
from unnoise.nn.spatial_transformer import SpatialTransformer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

SMALL = LatentUNetConfig(
    width=32, multipliers=(1, 2, 2), blocks=1, attention=(0, 1), heads=4, groups=8, context=24, context_tokens=5
)


def peer(config, num_classes=0):
    """diffusers' network with the same options; the attention of its heads is called after their number."""
    from diffusers import UNet2DConditionModel

    levels = range(len(config.multipliers))
    widths = tuple(config.width * multiplier for multiplier in config.multipliers)
    heads = tuple(config.heads_of(width) for width in widths)
    return UNet2DConditionModel(
        in_channels=4, out_channels=4, layers_per_block=config.blocks, norm_num_groups=config.groups,
        attention_head_dim=heads, block_out_channels=widths, cross_attention_dim=config.context,
        transformer_layers_per_block=config.depth,
        down_block_types=tuple("CrossAttnDownBlock2D" if config.attends(i) else "DownBlock2D" for i in levels),
        up_block_types=tuple("CrossAttnUpBlock2D" if config.attends(i) else "UpBlock2D" for i in reversed(levels)),
        num_class_embeds=num_classes + 1 if num_classes else None,
        class_embed_type="projection" if config.pooled else None,
        projection_class_embeddings_input_dim=config.pooled or None,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
    )  # fmt: skip


NAMES = (
    (r"time_embedding\.linear_1", "embedding.enter"),
    (r"time_embedding\.linear_2", "embedding.leave"),
    (r"class_embedding\.linear_1", "embedding.pooled.enter"),
    (r"class_embedding\.linear_2", "embedding.pooled.leave"),
    (r"class_embedding", "embedding.label"),
    (r"conv_norm_out", "norm"),
    (r"^conv_in\.", "enter."),
    (r"^conv_out\.", "leave."),
    (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.\3.residual"),
    (r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.\3.transformer"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"downsamples.\1"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"upsamples.\1"),
    (r"mid_block\.resnets\.(\d+)", r"middle.\1.residual"),
    (r"mid_block\.attentions\.0", "middle.0.transformer"),
    (r"residual\.norm1", "residual.norm_in"),
    (r"residual\.norm2", "residual.norm_out"),
    (r"residual\.conv1", "residual.conv_in"),
    (r"residual\.conv2", "residual.conv_out"),
    (r"residual\.time_emb_proj", "residual.project"),
    (r"residual\.conv_shortcut", "residual.skip"),
    (r"transformer\.proj_in", "transformer.enter"),
    (r"transformer\.proj_out", "transformer.leave"),
    (r"transformer_blocks", "blocks"),
    (r"norm1", "norm_attention"),
    (r"norm2", "norm_context"),
    (r"norm3", "norm_feed"),
    (r"attn1", "attention"),
    (r"attn2", "look_up"),
    (r"to_out\.0", "project_out"),
    (r"look_up\.to_q", "look_up.project_query"),
    (r"ff\.net\.0\.proj", "enter"),
    (r"ff\.net\.2", "leave"),
)  # each pattern is tried on what the ones before have made


def renamed(values, scale_shift=False):
    """Tensors of diffusers by our names.

    Queries, keys and values are one matrix of ours, keys and values of a context too; cosines stand behind sines; and what
    works on every place alone is a linear layer.
    """
    found = {}
    for name, value in values.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        if scale_shift:
            name = name.replace("residual.project", "residual.modulation")
        if re.search(r"transformer\.(enter|leave)\.weight", name):
            value = value.flatten(1)
        if name == "embedding.enter.weight":
            value = value.roll(value.shape[1] // 2, dims=1)
        found[name] = value
    for name in [name for name in found if ".to_k." in name]:
        crossing = "look_up" in name
        parts = [found.pop(name.replace(".to_k.", f".to_{part}.")) for part in ("kv" if crossing else "qkv")]
        found[name.replace("to_k", "project_context" if crossing else "project_in")] = torch.cat(parts)
    return found


def both(config, num_classes=0):
    """Their network, with no weight at zero, and ours with its weights."""
    torch.manual_seed(0)
    theirs = peer(config, num_classes)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    ours = LatentUNet((4, 16, 16), None, num_classes, config)
    nothing = {name: value for name, value in ours.named_buffers() if name.startswith("null_")}
    ours.load_state_dict({**renamed(theirs.state_dict(), config.scale_shift), **nothing})
    return theirs, ours


@pytest.mark.parametrize(
    ("size", "num_classes", "changes"),
    [
        ((16, 16), 0, {}),
        ((9, 14), 3, {"depth": 2, "blocks": 2}),
        ((7, 5), 0, {"head_channels": 16}),
        ((8, 8), 0, {"pooled": 11}),
        ((8, 8), 3, {"scale_shift": True}),
    ],
    ids=[
        "square",
        "odd",
        "smaller than the latents of training",
        "with a vector of the whole text",
        "scaled and shifted",
    ],
)
def test_outputs_and_gradients_are_those_of_diffusers(size, num_classes, changes):
    config = LatentUNetConfig(**{**vars(SMALL), **changes})
    theirs, ours = both(config, num_classes)
    x, pull, levels = torch.randn(3, 4, *size), torch.randn(3, 4, *size), torch.tensor([0.0, 500.0, 999.0])
    words = torch.randn(3, 7, 24)
    told = {"label": torch.tensor([0, 3, 2])} if num_classes else {}
    told |= {"pooled": torch.randn(3, config.pooled)} if config.pooled else {}
    expected = theirs(x, levels, words, class_labels=next(iter(told.values()), None)).sample
    found = ours(x, levels, {"context": words, **told})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward(pull)
    found.backward(pull)
    gradients = renamed({name: p.grad for name, p in theirs.named_parameters()}, config.scale_shift)
    for name, parameter in ours.named_parameters():
        distance = (parameter.grad - gradients[name]).norm()
        assert distance < 1e-5 * gradients[name].norm() + 1e-5, name


def test_in_bfloat16_it_is_near_the_float32_of_diffusers():
    from unnoise.precision import lower

    theirs, ours = both(SMALL)
    lower(ours, torch.bfloat16)
    x, levels, words = torch.randn(2, 4, 12, 16), torch.tensor([20.0, 700.0]), torch.randn(2, 7, 24)
    with torch.no_grad():
        expected = theirs(x, levels, words).sample
        found = ours(x.bfloat16(), levels, {"context": words})
    assert found.dtype == torch.bfloat16
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


def test_the_options_of_stable_diffusion_make_its_network():
    with torch.device("meta"):
        ours, theirs = LatentUNet((4, 64, 64), config=STABLE_DIFFUSION_1), peer(STABLE_DIFFUSION_1)
    assert sum(p.numel() for p in ours.parameters()) == 859_520_964
    expected = {name: value.shape for name, value in renamed(theirs.state_dict()).items()}
    assert {name: p.shape for name, p in ours.named_parameters()} == expected


def test_no_context_is_the_null_context_which_is_saved():
    torch.manual_seed(0)
    network = LatentUNet((4, 8, 8), None, 3, SMALL)
    torch.nn.init.normal_(network.leave.weight)
    for name, parameter in network.named_parameters():
        if "transformer.leave" in name:
            torch.nn.init.normal_(parameter)
    assert network.condition_keys == ("label", "context")
    assert not network.null_context.any()
    network.null_context.normal_()
    other = LatentUNet((4, 8, 8), None, 3, SMALL)
    other.load_state_dict(network.state_dict())
    x, levels = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0])
    null = other.null_condition(2)
    assert {name: tuple(each.shape) for name, each in null.items()} == {"label": (2,), "context": (2, 5, 24)}
    assert torch.equal(network(x, levels), other(x, levels, null))
    assert torch.equal(network(x, levels, {"label": null["label"]}), other(x, levels, {"context": null["context"]}))
    asked = network(x, levels, {"context": torch.randn(2, 9, 24)})  # any number of tokens
    assert ((asked - network(x, levels)).flatten(1).abs().amax(dim=1) > 1e-6).all()


def test_no_vector_is_the_null_vector_and_one_of_another_shape_is_refused():
    torch.manual_seed(0)
    network = LatentUNet((4, 8, 8), config=LatentUNetConfig(**{**vars(SMALL), "pooled": 6}))
    for parameter in network.parameters():  # the last layers of blocks are zero until trained
        torch.nn.init.normal_(parameter, std=0.1)
    assert network.condition_keys == ("context", "pooled")
    x, levels = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0])
    plain = network(x, levels)
    assert torch.equal(plain, network(x, levels, {"pooled": torch.zeros(2, 6)}))
    assert not torch.equal(plain, network(x, levels, {"pooled": torch.ones(2, 6)}))
    with pytest.raises(ShapeError, match=re.escape("expected a pooled vector of shape (2, 6), got (2, 5)")):
        network(x, levels, {"pooled": torch.zeros(2, 5)})


@pytest.mark.parametrize("shape", [(2, 24), (3, 5, 24), (2, 5, 23), (2, 0, 24)], ids=str)
def test_a_context_of_another_shape_is_refused(shape):
    network = LatentUNet((4, 8, 8), config=SMALL)
    with pytest.raises(ShapeError, match=re.escape(f"expected a context of shape (2, tokens, 24), got {shape}")):
        network(torch.randn(2, 4, 8, 8), torch.zeros(2), {"context": torch.zeros(shape)})


def test_a_network_without_context_takes_none():
    network = LatentUNet((4, 8, 8), config=LatentUNetConfig(width=16))
    assert network.null_condition(2) == {}
    with pytest.raises(BadOption, match="conditioned on nothing, not on context"):
        network(torch.randn(2, 4, 8, 8), torch.zeros(2), {"context": torch.zeros(2, 5, 24)})


@pytest.mark.parametrize("shape", [(1, 16), (2, 9), (4, 5, 7), (3, 4, 6, 6)], ids=str)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape):
    network = LatentUNet(shape, config=LatentUNetConfig(width=16, blocks=1))
    out = network(torch.randn(2, *shape), torch.tensor([3.0, 700.0]))
    assert out.shape == (2, *shape)
    assert not out.any()  # the last layer is zero until trained
    assert len(network.checkpointed_blocks()) == 3 * 3 + 2


def test_places_are_told_where_words_ask_for_a_side():
    torch.manual_seed(0)
    told, plain = (SpatialTransformer(16, 4, 24, groups=4, places=places) for places in (True, False))
    plain.load_state_dict(told.state_dict(), strict=False)
    for module in (told, plain):
        torch.nn.init.normal_(module.leave.weight, std=0.3)
    words = Context(torch.randn(1, 5, 24))
    even = torch.randn(1, 16, 1, 1).expand(1, 16, 6, 8)  # the same at every place
    spread = [module(even, words).flatten(2).std(dim=2).amax() for module in (told, plain)]
    assert spread[0] > 0.1
    assert spread[1] < 1e-6


def test_places_leave_everything_else_as_it_is():
    told = LatentUNet((4, 8, 8), config=LatentUNetConfig(**{**vars(SMALL), "places": True}))
    plain = LatentUNet((4, 8, 8), config=SMALL)
    more = {name for name in told.state_dict() if name not in plain.state_dict()}
    assert more == {f"{name}.places" for name, module in told.named_modules() if isinstance(module, SpatialTransformer)}
    for name, parameter in told.named_parameters():
        torch.nn.init.normal_(parameter, std=0.0 if name in more else 0.1)
    plain.load_state_dict({name: value for name, value in told.state_dict().items() if name not in more})
    x, levels, words = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 700.0]), torch.randn(2, 7, 24)
    torch.testing.assert_close(told(x, levels, {"context": words}), plain(x, levels, {"context": words}))


def test_places_need_an_even_number_of_channels():
    with pytest.raises(IncompatibleParts, match=r"network.places: sines need an even number of channels, got 15"):
        SpatialTransformer(15, 3, 24, places=True)
