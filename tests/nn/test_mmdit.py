"""The multimodal diffusion transformer against the one in diffusers, weight by weight."""

import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.joint import JointBlock
from unnoise.nn.mmdit import (
    STABLE_DIFFUSION_3_MEDIUM,
    STABLE_DIFFUSION_35_LARGE,
    STABLE_DIFFUSION_35_MEDIUM,
    MMDiT,
    MMDiTConfig,
)
from unnoise.nn.patches import positions
from unnoise.precision import lower

SMALL = MMDiTConfig(depth=3, width=24, heads=3, context=10, pooled=6, position_table=12, position_spacing=1 / 3)


def perturbed(network, scale=0.05):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
    return network


# Against diffusers


def peer(config, size=8):
    """diffusers' network with the same options; the smaller grid of which its positions are a finer copy has `size` places."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=size, patch_size=config.patch, in_channels=4, out_channels=4, num_layers=config.depth,
        attention_head_dim=config.width // config.heads, num_attention_heads=config.heads,
        joint_attention_dim=config.context, caption_projection_dim=config.width, pooled_projection_dim=config.pooled,
        pos_embed_max_size=config.position_table, dual_attention_layers=tuple(range(config.attend_twice)),
        qk_norm="rms_norm" if config.qk_norm else None,
    )  # fmt: skip


def swapped(value):
    """Theirs scales before it shifts."""
    scale, shift = value.chunk(2)
    return torch.cat([shift, scale])


def stream(state, block, ours, projections, norms, names, ends):
    """The weights of one kind of tokens in a block."""
    made = {}
    for kind in ("weight", "bias"):
        steering = state[f"{block}.{names['norm']}.linear.{kind}"]
        made[f"{ours}.modulation.{kind}"] = swapped(steering) if ends else steering
        parts = [state[f"{block}.attn.{each}.{kind}"] for each in projections]
        made[f"{ours}.attention.project_in.{kind}"] = torch.cat(parts[1:] if ends else parts)
        if not ends:
            made[f"{ours}.attention.project_out.{kind}"] = state[f"{block}.attn.{names['out']}.{kind}"]
            made[f"{ours}.enter.{kind}"] = state[f"{block}.{names['ff']}.net.0.proj.{kind}"]
            made[f"{ours}.leave.{kind}"] = state[f"{block}.{names['ff']}.net.2.{kind}"]
    for side, norm in zip(("query", "key"), norms, strict=True):
        if f"{block}.attn.{norm}.weight" in state and not (ends and side == "query"):
            made[f"{ours}.attention.{side}_norm.weight"] = state[f"{block}.attn.{norm}.weight"]
    return made


PLACES = {"norm": "norm1", "out": "to_out.0", "ff": "ff"}
WORDS = {"norm": "norm1_context", "out": "to_add_out", "ff": "ff_context"}


def named_as_ours(state):
    """The weights of diffusers' transformer under our names, without the queries of words in the last block, which nobody needs."""
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks."))
    half = state["time_text_embed.timestep_embedder.linear_1.weight"].shape[1] // 2
    ours = {}
    for kind in ("weight", "bias"):
        first = state[f"time_text_embed.timestep_embedder.linear_1.{kind}"]
        ours[f"embedding.enter.{kind}"] = first.roll(half, dims=1) if kind == "weight" else first
        ours[f"embedding.leave.{kind}"] = state[f"time_text_embed.timestep_embedder.linear_2.{kind}"]
        ours[f"embedding.pooled.enter.{kind}"] = state[f"time_text_embed.text_embedder.linear_1.{kind}"]
        ours[f"embedding.pooled.leave.{kind}"] = state[f"time_text_embed.text_embedder.linear_2.{kind}"]
        ours[f"read.{kind}"] = state[f"context_embedder.{kind}"]
        patches = state[f"pos_embed.proj.{kind}"]
        ours[f"enter.{kind}"] = patches.permute(0, 2, 3, 1).flatten(1) if kind == "weight" else patches
        ours[f"modulation.{kind}"] = swapped(state[f"norm_out.linear.{kind}"])
        ours[f"leave.{kind}"] = state[f"proj_out.{kind}"]
    for i in range(depth):
        block, own = f"transformer_blocks.{i}", f"blocks.{i}"
        ours |= stream(state, block, f"{own}.places", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), PLACES, False)
        added = ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k")
        ours |= stream(state, block, f"{own}.words", *added, WORDS, i == depth - 1)
        if f"{block}.attn2.to_q.weight" in state:
            for kind in ("weight", "bias"):
                triple = [state[f"{block}.attn2.to_{part}.{kind}"] for part in "qkv"]
                ours[f"{own}.places.alone.project_in.{kind}"] = torch.cat(triple)
                ours[f"{own}.places.alone.project_out.{kind}"] = state[f"{block}.attn2.to_out.0.{kind}"]
            for side, norm in (("query", "norm_q"), ("key", "norm_k")):
                if f"{block}.attn2.{norm}.weight" in state:
                    ours[f"{own}.places.alone.{side}_norm.weight"] = state[f"{block}.attn2.{norm}.weight"]
    return ours


def both(config):
    torch.manual_seed(0)
    theirs = perturbed(peer(config)).double().eval()
    # Its table in full precision: the last digits of single precision are all that would differ.
    table = positions((config.position_table,) * 2, config.width, None, 0, config.position_spacing)
    torch.testing.assert_close(theirs.pos_embed.pos_embed[0], table, rtol=0, atol=1e-6)
    ours = MMDiT((4, 8, 8), config=config).double()
    state = named_as_ours(theirs.state_dict())
    ours.load_state_dict({**state, "null_context": ours.null_context, "null_pooled": ours.null_pooled})
    return theirs, ours


CHANGES = {
    "3": {},
    "3.5 large": {"qk_norm": True},
    "3.5 medium": {"qk_norm": True, "attend_twice": 2},
}


@pytest.mark.parametrize("size", [(8, 8), (12, 4)], ids=str)
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_outputs_and_gradients_are_those_of_diffusers(changes, size):
    theirs, ours = both(MMDiTConfig(**{**vars(SMALL), **changes}))
    x, pull = (torch.randn(3, 4, *size, dtype=torch.float64) for _ in range(2))
    words, pooled = torch.randn(3, 5, 10, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    levels = torch.tensor([0.0, 500.0, 999.0])
    expected = theirs(x, words, pooled, levels).sample
    found = ours(x, levels, {"context": words, "pooled": pooled})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward(pull)
    found.backward(pull)
    of = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in theirs.named_parameters()}
    gradients = named_as_ours(of)
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        distance = (parameter.grad - gradients[name]).norm()
        assert distance < 1e-5 * gradients[name].norm() + 1e-5, name


def test_the_options_of_stable_diffusion_make_its_network():
    with torch.device("meta"):
        ours, theirs = MMDiT((4, 128, 128), config=STABLE_DIFFUSION_35_MEDIUM), peer(STABLE_DIFFUSION_35_MEDIUM, 128)
    expected = {name: value.shape for name, value in named_as_ours(dict(theirs.named_parameters())).items()}
    assert {name: p.shape for name, p in ours.named_parameters()} == expected


@pytest.mark.parametrize(
    ("config", "weights"),
    [(STABLE_DIFFUSION_3_MEDIUM, 2.0e9), (STABLE_DIFFUSION_35_MEDIUM, 2.2e9), (STABLE_DIFFUSION_35_LARGE, 8.1e9)],
    ids=["3 medium", "3.5 medium", "3.5 large"],
)
def test_its_networks_have_as_many_weights_as_are_published(config, weights):
    with torch.device("meta"):
        ours = MMDiT((16, 128, 128), config=config)
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(weights, rel=0.03)


# What it does


def test_blocks_are_the_identity_and_the_output_zero_at_the_start():
    torch.manual_seed(0)
    network = MMDiT((2, 8, 8), (4, 8, 8), 3, MMDiTConfig(depth=2, width=24, heads=3, context=10, attend_twice=1))
    assert not network(torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])).any()
    places, words, told = torch.randn(2, 16, 24), torch.randn(2, 5, 24), torch.randn(2, 24)
    for found, expected in zip(network.blocks[0](places, words, told), (places, words), strict=True):
        assert torch.equal(found, expected)
    assert network.blocks[1](places, words, told)[1] is None


def test_words_see_places_and_places_see_words():
    torch.manual_seed(0)
    block = perturbed(JointBlock(MMDiTConfig(depth=1, width=24, heads=3, context=10), False), 0.2)
    places, words, told = torch.randn(2, 6, 24), torch.randn(2, 5, 24), torch.randn(2, 24)
    before = block(places, words, told)
    for after in (block(places + 1 / 3 * torch.randn(24), words, told), block(places, words.roll(1, dims=2), told)):
        for one, other in zip(before, after, strict=True):
            assert ((one - other).flatten(1).abs().amax(dim=1) > 1e-4).all()


def test_positions_from_the_middle_of_a_table_agree_in_the_middle_and_not_in_the_corner():
    small, large = positions((2, 4), 24, None, 10, 0.5), positions((6, 8), 24, None, 10, 0.5)
    assert torch.equal(large.unflatten(0, (6, 8))[2:4, 2:6].flatten(0, 1), small)
    assert torch.equal(positions((10, 10), 24, None, 10, 0.5), positions((10, 10), 24, None, 0, 0.5))
    with pytest.raises(
        ShapeError, match="expected at most 10 patches along an axis, the table of positions, got 4 x 11"
    ):
        positions((4, 11), 24, None, 10)


@pytest.mark.parametrize(
    ("shape", "patch"), [((1, 16), 4), ((3, 6, 14), 2), ((3, 3, 6, 4), (1, 2, 2))], ids=["sequence", "image", "video"]
)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape, patch):
    torch.manual_seed(0)
    network = perturbed(MMDiT(shape, config=MMDiTConfig(depth=2, width=24, heads=3, context=10, patch=patch)))
    cond = {"context": torch.randn(2, 3, 10)}
    assert network(torch.randn(2, *shape), torch.tensor([3.0, 700.0]), cond).shape == (2, *shape)
    larger = (shape[0], *(2 * n for n in shape[1:]))
    assert network(torch.randn(2, *larger), torch.zeros(2), cond).shape == (2, *larger)


def test_in_bfloat16_it_is_within_two_percent():
    torch.manual_seed(0)
    precise = perturbed(MMDiT((4, 16, 16), config=MMDiTConfig(depth=3, width=96, heads=3, context=10, qk_norm=True)))
    coarse = MMDiT((4, 16, 16), config=precise.config)
    coarse.load_state_dict(precise.state_dict())
    lower(coarse, torch.bfloat16)
    x, levels, cond = torch.randn(4, 4, 16, 16), torch.linspace(0, 999, 4), {"context": torch.randn(4, 7, 10)}
    with torch.no_grad():
        expected, found = precise(x, levels, cond), coarse(x.bfloat16(), levels, cond)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_the_depth_says_how_wide_it_is_unless_that_is_given():
    config = networks.options({"name": "mmdit", "depth": "24"})[1]
    assert (config.width, config.heads) == (1536, 24)
    assert (MMDiTConfig(depth=2, width=96).heads, MMDiTConfig(depth=1, width=32).heads) == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 31}, "width: must be even, got 31"),
        ({"heads": 7}, "heads: must divide the width 512, got 7"),
        ({"attend_twice": 9}, "attend_twice: there are 8 blocks, got 9"),
        ({"patch": 0}, r"network\.patch: must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadOption, match=message):
        networks.options({"name": "mmdit", **options}, "network")


def test_points_are_refused():
    with pytest.raises(IncompatibleParts, match=r"got \(2,\): take the network mlp, network\.name=mlp"):
        MMDiT((2,), config=SMALL)
