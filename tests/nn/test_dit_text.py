"""The diffusion transformer that looks up the tokens of a text, against PixArt-alpha as diffusers has it; long skips; sizes."""

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.conditions import Context
from unnoise.nn.dit import SIZES, DiT, DiTConfig
from unnoise.options import build, plain

TEXT = DiTConfig(width=24, depth=3, heads=3, context=10)


def perturbed(network, scale=0.05):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
    return network


# Against diffusers


def named_as_ours(state, level_bias):
    """The weights of PixArt under our names, those of its last modulation left out.

    Theirs makes what steers a block by one layer for all of them, and adds a table of each block's own. What steers the last
    layer is the embedding of the noise level itself, which for one noise level is a bias.
    """
    depth = sum(key.endswith("attn1.to_q.weight") for key in state)
    half = state["adaln_single.emb.timestep_embedder.linear_1.weight"].shape[1] // 2
    shared = state["adaln_single.linear.weight"]
    tables = [
        state["adaln_single.linear.bias"] + state[f"transformer_blocks.{i}.scale_shift_table"].flatten()
        for i in range(depth)
    ]
    ours = {
        "embedding.enter.weight": state["adaln_single.emb.timestep_embedder.linear_1.weight"].roll(half, dims=1),
        "embedding.enter.bias": state["adaln_single.emb.timestep_embedder.linear_1.bias"],
        "embedding.leave.weight": state["adaln_single.emb.timestep_embedder.linear_2.weight"],
        "embedding.leave.bias": state["adaln_single.emb.timestep_embedder.linear_2.bias"],
        "enter.weight": state["pos_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1),
        "enter.bias": state["pos_embed.proj.bias"],
        "modulation.weight": torch.cat([*[shared] * depth, shared.new_zeros(shared.shape[0] // 3, shared.shape[1])]),
        "modulation.bias": torch.cat([*tables, level_bias]),
    }
    for kind in ("weight", "bias"):
        ours[f"read.enter.{kind}"] = state[f"caption_projection.linear_1.{kind}"]
        ours[f"read.leave.{kind}"] = state[f"caption_projection.linear_2.{kind}"]
        ours[f"leave.{kind}"] = state[f"proj_out.{kind}"]
        for i in range(depth):
            theirs, block = f"transformer_blocks.{i}.", f"blocks.{i}."
            of = {part: state[f"{theirs}{part}.{kind}"] for part in ("attn1.to_q", "attn1.to_k", "attn1.to_v")}
            ours[f"{block}attention.project_in.{kind}"] = torch.cat(list(of.values()))
            ours[f"{block}attention.project_out.{kind}"] = state[f"{theirs}attn1.to_out.0.{kind}"]
            ours[f"{block}look_up.project_query.{kind}"] = state[f"{theirs}attn2.to_q.{kind}"]
            both = [state[f"{theirs}attn2.to_{part}.{kind}"] for part in "kv"]
            ours[f"{block}look_up.project_context.{kind}"] = torch.cat(both)
            ours[f"{block}look_up.project_out.{kind}"] = state[f"{theirs}attn2.to_out.0.{kind}"]
            ours[f"{block}enter.{kind}"] = state[f"{theirs}ff.net.0.proj.{kind}"]
            ours[f"{block}leave.{kind}"] = state[f"{theirs}ff.net.2.{kind}"]
    return ours


@pytest.mark.parametrize("level", [0.0, 430.0, 999.0])
@pytest.mark.parametrize("masked", [False, True], ids=["every token", "with a mask"])
def test_it_computes_what_diffusers_does(level, masked):
    torch.manual_seed(0)
    theirs = PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, sample_size=8,
        cross_attention_dim=24, caption_channels=10, use_additional_conditions=False,
    )  # fmt: skip
    theirs = perturbed(theirs).double().eval()
    theirs.pos_embed.pos_embed = theirs.pos_embed.pos_embed.double()
    ours = DiT((4, 8, 8), (8, 8, 8), config=TEXT).double()
    levels = torch.full((3,), level)
    with torch.no_grad():
        embedded = theirs.adaln_single.emb(levels[:1], None, None, 1, torch.float64)  # what steers their last layer
        last = (theirs.scale_shift_table + embedded).flatten()
    state = named_as_ours(theirs.state_dict(), last)
    ours.load_state_dict({**state, "null_context": ours.null_context})
    x, words = torch.randn(3, 4, 8, 8, dtype=torch.float64), torch.randn(3, 6, 10, dtype=torch.float64)
    mask = torch.arange(6).expand(3, -1) < torch.tensor([6, 1, 4])[:, None]
    told, asked = ({"encoder_attention_mask": mask}, {"context_mask": mask}) if masked else ({}, {})
    expected = theirs(x, words, levels, **told).sample
    torch.testing.assert_close(ours(x, levels, {"context": words, **asked}), expected, rtol=1e-5, atol=1e-5)


# At the start


def test_words_say_nothing_at_the_start_and_the_output_is_zero():
    torch.manual_seed(0)
    network = DiT((2, 8, 8), config=DiTConfig(width=24, depth=3, heads=3, context=10, pooled=4, long_skips=True))
    assert not network(torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0]), {"context": torch.randn(2, 5, 10)}).any()
    told = network.modulation(torch.randn(2, 24))[:, : 6 * 24]
    tokens, context = torch.randn(2, 16, 24), Context(torch.randn(2, 4, 24))
    assert torch.equal(network.blocks[0](tokens, told, context), tokens)
    torch.testing.assert_close(network.blocks[-1](tokens, told, context, torch.randn(2, 16, 24)), tokens)


# Conditions


def test_labels_words_and_a_vector_are_asked_for_together():
    torch.manual_seed(0)
    config = DiTConfig(width=24, depth=2, heads=3, context=10, pooled=4)
    network = perturbed(DiT((2, 8, 8), None, 5, config), 0.1).double()
    assert network.condition_keys == ("label", "context", "pooled")
    x, levels = torch.randn(2, 2, 8, 8, dtype=torch.float64), torch.tensor([5.0, 600.0])
    cond = {"label": torch.tensor([1, 4]), "context": torch.randn(2, 3, 10), "pooled": torch.randn(2, 4)}
    before = network(x, levels, cond)
    for name in cond:
        left_out = {key: value for key, value in cond.items() if key != name}
        assert ((network(x, levels, left_out) - before).flatten(1).abs().amax(dim=1) > 1e-4).all()
    with pytest.raises(ShapeError, match=r"expected a pooled vector of shape \(2, 4\), got \(2, 3\)"):
        network(x, levels, {"pooled": torch.zeros(2, 3)})


# Long skips


@pytest.mark.parametrize(("depth", "skips"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (8, 3)])
def test_what_leaves_a_block_enters_the_one_that_lies_opposite(depth, skips):
    torch.manual_seed(0)
    network = DiT((2, 8, 8), config=DiTConfig(width=24, depth=depth, heads=3, long_skips=True))
    assert [block.join is not None for block in network.blocks] == [False] * (depth - skips) + [True] * skips
    perturbed(network, 0.1)
    left, joined = [], []
    for block in network.blocks:
        block.register_forward_hook(lambda _, args, out: left.append(out))
        block.register_forward_pre_hook(lambda _, args: joined.append(args[3]))
    network(torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0]))
    for i in range(skips):
        assert joined[depth - 1 - i] is left[i]
    assert joined[: depth - skips] == [None] * (depth - skips)


# Sizes


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_three_options_at_once(size):
    config = networks.options({"name": "dit", "size": size, "patch": 4})[1]
    assert (config.width, config.depth, config.heads) == SIZES[size]
    assert build(DiTConfig, plain(config)) == config
    assert DiTConfig(size=size, depth=2).depth == 2
    assert DiTConfig(size=size, depth=2).width == SIZES[size][0]


def test_without_a_word_it_is_the_smallest_and_others_have_no_name():
    assert (DiTConfig().width, DiTConfig().depth, DiTConfig().heads) == SIZES["S"]
    with pytest.raises(BadOption, match=r"network\.size: expected S, B, L or XL, got 'M'"):
        networks.options({"name": "dit", "size": "M"}, "network")
