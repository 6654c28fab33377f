"""The transformer of FLUX against the one in diffusers, weight by weight."""

import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts
from unnoise.nn.base import networks
from unnoise.nn.flux import FLUX_1_DEV, Flux, FluxConfig
from unnoise.nn.patches import rotated, rotations
from unnoise.precision import lower

SMALL = FluxConfig(
    width=48, heads=3, context=10, pooled=6, double_blocks=2, single_blocks=3, axes=(6, 6), guidance=True
)


def perturbed(network, scale=0.05):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
    return network


# Against diffusers


def peer(config, channels=4):
    """diffusers' network with the same options; its first axis, where all places are 0, has what our axes leave."""
    from diffusers import FluxTransformer2DModel

    head = config.width // config.heads
    return FluxTransformer2DModel(
        in_channels=4 * channels, num_layers=config.double_blocks, num_single_layers=config.single_blocks,
        attention_head_dim=head, num_attention_heads=config.heads, joint_attention_dim=config.context,
        pooled_projection_dim=config.pooled, guidance_embeds=config.guidance,
        axes_dims_rope=(head - sum(config.axes), *config.axes),
    )  # fmt: skip


def innermost(value):
    """Rows for the values of a patch, in their order (channel, row, column), in ours."""
    return value.unflatten(0, (-1, 2, 2)).movedim(0, 2).flatten(0, 2)


def named_as_ours(state):
    """The weights of diffusers' transformer under our names."""
    embedding = {"": "timestep_embedder", "guidance.": "guidance_embedder", "pooled.": "text_embedder"}
    ours = {"enter.weight": innermost(state["x_embedder.weight"].t()).t(), "enter.bias": state["x_embedder.bias"]}
    for kind in ("weight", "bias"):
        for own, theirs in embedding.items():
            for place, layer in (("enter", "linear_1"), ("leave", "linear_2")):
                key = f"time_text_embed.{theirs}.{layer}.{kind}"
                if key in state:
                    waves = place == "enter" and kind == "weight" and theirs != "text_embedder"
                    value = state[key]
                    ours[f"embedding.{own}{place}.{kind}"] = value.roll(value.shape[1] // 2, dims=1) if waves else value
        ours[f"read.{kind}"] = state[f"context_embedder.{kind}"]
        scale, shift = state[f"norm_out.linear.{kind}"].chunk(2)
        ours[f"modulation.{kind}"] = torch.cat([shift, scale])
        ours[f"leave.{kind}"] = innermost(state[f"proj_out.{kind}"])
    streams = {
        "places": ("norm1", ("to_q", "to_k", "to_v"), "to_out.0", "ff", ("norm_q", "norm_k")),
        "words": ("norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context",
                  ("norm_added_q", "norm_added_k")),
    }  # fmt: skip
    for key in [key for key in state if key.endswith("norm1.linear.weight")]:
        block = key.removesuffix(".norm1.linear.weight")
        for name, (norm, triple, out, ff, norms) in streams.items():
            own = f"double_blocks.{block.split('.')[1]}.{name}"
            for kind in ("weight", "bias"):
                ours[f"{own}.modulation.{kind}"] = state[f"{block}.{norm}.linear.{kind}"]
                ours[f"{own}.attention.project_in.{kind}"] = torch.cat(
                    [state[f"{block}.attn.{e}.{kind}"] for e in triple]
                )
                ours[f"{own}.attention.project_out.{kind}"] = state[f"{block}.attn.{out}.{kind}"]
                ours[f"{own}.enter.{kind}"] = state[f"{block}.{ff}.net.0.proj.{kind}"]
                ours[f"{own}.leave.{kind}"] = state[f"{block}.{ff}.net.2.{kind}"]
            for side, theirs in zip(("query", "key"), norms, strict=True):
                ours[f"{own}.attention.{side}_norm.weight"] = state[f"{block}.attn.{theirs}.weight"]
    for key in [key for key in state if key.endswith("proj_mlp.weight")]:
        block = key.removesuffix(".proj_mlp.weight")
        own = f"single_blocks.{block.split('.')[1]}"
        for kind in ("weight", "bias"):
            ours[f"{own}.modulation.{kind}"] = state[f"{block}.norm.linear.{kind}"]
            triple = [state[f"{block}.attn.to_{part}.{kind}"] for part in "qkv"]
            ours[f"{own}.attention.project_in.{kind}"] = torch.cat(triple)
            ours[f"{own}.enter.{kind}"] = state[f"{block}.proj_mlp.{kind}"]
            ours[f"{own}.leave.{kind}"] = state[f"{block}.proj_out.{kind}"]
        for side, theirs in (("query", "norm_q"), ("key", "norm_k")):
            ours[f"{own}.attention.{side}_norm.weight"] = state[f"{block}.attn.{theirs}.weight"]
    return ours


def packed(x):
    """Patches of 2 x 2 as diffusers' pipeline lays them out: one row each, the channels outermost."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def asked(theirs, x, levels, words, pooled, guidance):
    """What diffusers' network says, packed."""
    rows, columns = (n // 2 for n in x.shape[2:])
    at = torch.zeros(rows, columns, 3)
    at[..., 1] += torch.arange(rows)[:, None]
    at[..., 2] += torch.arange(columns)
    return theirs(
        packed(x), words, pooled, levels / 1000, at.flatten(0, 1), torch.zeros(words.shape[1], 3), guidance
    ).sample


@pytest.mark.parametrize("size", [(8, 8), (4, 10)], ids=str)
@pytest.mark.parametrize("guidance", [True, False], ids=["told a scale", "not told"])
def test_outputs_and_gradients_are_those_of_diffusers(size, guidance):
    torch.manual_seed(0)
    config = FluxConfig(**{**vars(SMALL), "guidance": guidance})
    theirs, ours = perturbed(peer(config)).double().eval(), Flux((4, 8, 8), config=config).double()
    state = named_as_ours(theirs.state_dict())
    ours.load_state_dict({**state, "null_context": ours.null_context, "null_pooled": ours.null_pooled})
    x, pull = (torch.randn(3, 4, *size, dtype=torch.float64) for _ in range(2))
    words, pooled = torch.randn(3, 5, 10, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    levels, scale = torch.tensor([0.0, 500.0, 1000.0], dtype=torch.float64), torch.tensor([1.0, 3.5, 4.0])
    expected = asked(theirs, x, levels, words, pooled, scale if guidance else None)
    cond = {"context": words, "pooled": pooled} | ({"guidance": scale} if guidance else {})
    found = ours(x, levels, cond)
    torch.testing.assert_close(packed(found), expected, rtol=1e-5, atol=1e-5)
    expected.backward(packed(pull))
    found.backward(pull)
    gradients = named_as_ours({name: p.grad for name, p in theirs.named_parameters()})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        distance = (parameter.grad - gradients[name]).norm()
        assert distance < 1e-5 * gradients[name].norm() + 1e-5, name


def test_the_options_of_flux_1_make_its_network():
    few = FluxConfig(**{**vars(FLUX_1_DEV), "double_blocks": 2, "single_blocks": 2})
    with torch.device("meta"):
        whole, ours, theirs = (*(Flux((16, 128, 128), config=config) for config in (FLUX_1_DEV, few)), peer(few, 16))
    expected = {name: value.shape for name, value in named_as_ours(dict(theirs.named_parameters())).items()}
    assert {name: p.shape for name, p in ours.named_parameters()} == expected
    assert sum(p.numel() for p in whole.parameters()) == pytest.approx(11.9e9, rel=0.01)


# Positions


def test_what_two_turned_tokens_see_of_each_other_depends_on_their_distance():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)
    angles = rotations((5, 6), (6, 8), 16)
    scores = (
        rotated(query.expand(1, 30, 1, 16), angles).flatten(2) @ rotated(key.expand(1, 30, 1, 16), angles).flatten(2).mT
    )[0]
    scores = scores.unflatten(1, (5, 6)).unflatten(0, (5, 6))
    torch.testing.assert_close(scores[:-2, :-1, :-2, :-1], scores[2:, 1:, 2:, 1:])
    assert (scores[0, 0, 0, 0] - scores[0, 0, 0, 1]).abs() > 0.1
    assert (scores[0, 0, 0, 0] - scores[0, 0, 1, 0]).abs() > 0.1


def test_tokens_before_and_channels_in_front_are_not_turned():
    torch.manual_seed(0)
    angles = rotations((3, 4), (4, 6), 16, before=5)
    assert angles.shape == (17, 8)
    x = torch.randn(2, 17, 3, 16)
    turned = rotated(x, angles)
    assert torch.equal(turned[:, :5], x[:, :5])
    assert torch.equal(turned[..., :6], x[..., :6])
    torch.testing.assert_close(turned.norm(dim=3), x.norm(dim=3))
    assert (turned[:, -1, :, 6:] - x[:, -1, :, 6:]).abs().min() > 1e-4


# What it does


def test_blocks_are_the_identity_and_the_output_zero_at_the_start():
    torch.manual_seed(0)
    network = Flux((2, 8, 8), (4, 8, 8), 3, SMALL)
    assert not network(torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])).any()
    tokens, told, angles = torch.randn(2, 21, 48), torch.randn(2, 48), rotations((4, 4), (6, 6), 16, before=5)
    assert torch.equal(network.single_blocks[0](tokens, told, None, angles), tokens)
    found = network.double_blocks[0](tokens[:, 5:], tokens[:, :5], told, None, angles)
    assert torch.equal(torch.cat([found[1], found[0]], dim=1), tokens)


@pytest.mark.parametrize("blocks", [(2, 0), (0, 2)], ids=["double blocks only", "single blocks only"])
def test_one_kind_of_blocks_is_enough_and_every_weight_is_needed(blocks):
    torch.manual_seed(0)
    config = FluxConfig(width=32, heads=2, context=10, double_blocks=blocks[0], single_blocks=blocks[1])
    network = perturbed(Flux((2, 8, 8), config=config), 0.1)
    network(
        torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0]), {"context": torch.randn(2, 5, 10)}
    ).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize(
    ("shape", "patch"), [((1, 16), 4), ((3, 6, 14), 2), ((3, 3, 6, 4), (1, 2, 2))], ids=["sequence", "image", "video"]
)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape, patch):
    torch.manual_seed(0)
    config = FluxConfig(width=48, heads=3, context=10, double_blocks=1, single_blocks=1, patch=patch)
    network = perturbed(Flux(shape, config=config))
    cond = {"context": torch.randn(2, 3, 10)}
    assert network(torch.randn(2, *shape), torch.tensor([3.0, 700.0]), cond).shape == (2, *shape)
    larger = (shape[0], *(2 * n for n in shape[1:]))
    assert network(torch.randn(2, *larger), torch.zeros(2), cond).shape == (2, *larger)


def test_in_bfloat16_it_is_within_two_percent():
    torch.manual_seed(0)
    precise = perturbed(
        Flux((4, 16, 16), config=FluxConfig(width=96, heads=3, context=10, double_blocks=2, single_blocks=2))
    )
    coarse = Flux((4, 16, 16), config=precise.config)
    coarse.load_state_dict(precise.state_dict())
    lower(coarse, torch.bfloat16)
    x, levels, cond = torch.randn(4, 4, 16, 16), torch.linspace(0, 999, 4), {"context": torch.randn(4, 7, 10)}
    with torch.no_grad():
        expected, found = precise(x, levels, cond), coarse(x.bfloat16(), levels, cond)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_axes_share_out_seven_eighths_of_a_head_unless_they_are_given():
    assert FluxConfig(width=3072, heads=24).axes_of(2) == FLUX_1_DEV.axes_of(2) == (56, 56)
    assert FluxConfig(width=48, heads=3).axes_of(3) == (4, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 31}, "width: must be even, got 31"),
        ({"width": 6, "heads": 2}, "heads: a head must have an even number of channels, got 3"),
        ({"axes": [3, 4]}, r"axes: expected even numbers, together at most 64, got \[3, 4\]"),
        ({"axes": [40, 40]}, r"axes: expected even numbers, together at most 64, got \[40, 40\]"),
        ({"single_blocks": 0, "double_blocks": 0}, "expected at least one block of either kind"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadOption, match=message):
        networks.options({"name": "flux", **options}, "network")


def test_axes_for_other_data_are_refused():
    with pytest.raises(
        IncompatibleParts, match=r"network\.axes: expected channels for each of 2 axes and 16 .*, got \[8\]"
    ):
        Flux((1, 8, 8), config=FluxConfig(width=48, heads=3, axes=(8,)))
    with pytest.raises(
        IncompatibleParts, match=r"network\.axes: expected channels for each of 3 axes and 4 .*, got \[0, 0, 0\]"
    ):
        Flux((1, 4, 8, 8), config=FluxConfig(width=48, heads=12))
