"""The diffusion transformer on data of one, two and three dimensions, and against the one in diffusers."""

import copy

import pytest
import torch
from diffusers import DiTTransformer2DModel

from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.dit import DiT, DiTConfig
from unnoise.nn.patches import patchify, positions, unpatchify
from unnoise.precision import lower

SMALL = DiTConfig(width=24, depth=2, heads=3)


def perturbed(network, scale=0.1):
    """The network, with no weight zero any more."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
    return network


# Against diffusers


def named_as_ours(state, patch):
    """The weights of diffusers' transformer under our names.

    Theirs keeps a copy of the embedding, and a layer that makes what steers it, in every block; the copies are equal in
    its published weights. Its cosines come before its sines. Patches enter channel by channel, and leave place by place.
    """
    depth = sum(key.endswith("attn1.to_q.weight") for key in state)
    told = "transformer_blocks.0.norm1.emb."
    half = state[f"{told}timestep_embedder.linear_1.weight"].shape[1] // 2
    ours = {
        "embedding.enter.weight": state[f"{told}timestep_embedder.linear_1.weight"].roll(half, dims=1),
        "embedding.enter.bias": state[f"{told}timestep_embedder.linear_1.bias"],
        "embedding.leave.weight": state[f"{told}timestep_embedder.linear_2.weight"],
        "embedding.leave.bias": state[f"{told}timestep_embedder.linear_2.bias"],
        "embedding.label.weight": state[f"{told}class_embedder.embedding_table.weight"],
        "enter.weight": state["pos_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1),
        "enter.bias": state["pos_embed.proj.bias"],
        "leave.weight": state["proj_out_2.weight"],
        "leave.bias": state["proj_out_2.bias"],
    }
    for kind in ("weight", "bias"):
        steering = [state[f"transformer_blocks.{i}.norm1.linear.{kind}"] for i in range(depth)]
        ours[f"modulation.{kind}"] = torch.cat([*steering, state[f"proj_out_1.{kind}"]])
        for i in range(depth):
            block = f"transformer_blocks.{i}."
            triple = [state[f"{block}attn1.to_{name}.{kind}"] for name in ("q", "k", "v")]
            ours[f"blocks.{i}.attention.project_in.{kind}"] = torch.cat(triple)
            ours[f"blocks.{i}.attention.project_out.{kind}"] = state[f"{block}attn1.to_out.0.{kind}"]
            ours[f"blocks.{i}.enter.{kind}"] = state[f"{block}ff.net.0.proj.{kind}"]
            ours[f"blocks.{i}.leave.{kind}"] = state[f"{block}ff.net.2.{kind}"]
    return ours


def beside_diffusers(dtype, *, heads, head_channels, depth, patch, size, num_classes, channels=4, out_channels=8):
    """Diffusers' transformer with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_channels,
        in_channels=channels,
        out_channels=out_channels,
        num_layers=depth,
        sample_size=size,
        patch_size=patch,
        num_embeds_ada_norm=num_classes,
        norm_eps=1e-6,  # as in the paper's code, and everywhere else in theirs
    )
    perturbed(theirs, 0.05)
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # the frequencies of the paper's code
        block.norm1.emb = theirs.transformer_blocks[0].norm1.emb
    theirs = theirs.to(dtype).eval()
    config = DiTConfig(width=heads * head_channels, depth=depth, heads=heads, patch=patch)
    ours = DiT((channels, size, size), (out_channels, size, size), num_classes, config).to(dtype)
    ours.load_state_dict(named_as_ours(theirs.state_dict(), patch))
    return theirs, ours


CONFIGURATIONS = {
    "small": {"heads": 2, "head_channels": 12, "depth": 3, "patch": 2, "size": 8, "num_classes": 5},
    "S/4": {"heads": 6, "head_channels": 64, "depth": 12, "patch": 4, "size": 32, "num_classes": 1000},
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_it_computes_what_diffusers_does_and_has_its_gradients(configuration):
    theirs, ours = beside_diffusers(torch.float64, **configuration)
    size, null = configuration["size"], configuration["num_classes"]
    x = torch.randn(4, 4, size, size, dtype=torch.float64)
    levels, labels = torch.tensor([0.0, 17.0, 500.0, 999.0]), torch.tensor([0, 3, null, 1])
    pull = torch.randn(4, 8, size, size, dtype=torch.float64)
    expected = theirs(x, levels, labels).sample
    found = ours(x, levels, {"label": labels})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (expected * pull).sum().backward()
    (found * pull).sum().backward()
    gradients = {key: p.grad for key, p in theirs.named_parameters()}
    told = "norm1.emb"
    for i in range(1, configuration["depth"]):  # one embedding, told to all blocks
        for key in [key for key in gradients if key.startswith(f"transformer_blocks.0.{told}")]:
            gradients[key.replace("blocks.0.", f"blocks.{i}.")] = gradients[key]
    expected = named_as_ours(gradients, configuration["patch"])
    found = {key: p.grad for key, p in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item(), msg=key)


def test_a_dropped_label_is_the_null_class_of_diffusers():
    theirs, ours = beside_diffusers(torch.float64, **CONFIGURATIONS["small"])
    x, levels = torch.randn(3, 4, 8, 8, dtype=torch.float64), torch.tensor([1.0, 30.0, 900.0])
    embedder = theirs.transformer_blocks[0].norm1.emb.class_embedder
    embedder.train()
    embedder.dropout_prob = 1.0
    dropped = theirs(x, levels, torch.tensor([0, 1, 2])).sample
    torch.testing.assert_close(ours(x, levels, None), dropped, rtol=1e-6, atol=1e-6)


def test_it_has_as_many_weights_as_the_paper_counts():
    # Table 4 of the paper gives 33, 130, 458 and 675 million.
    for width, depth, heads, millions in [
        (384, 12, 6, 33),
        (768, 12, 12, 130),
        (1024, 24, 16, 458),
        (1152, 28, 16, 675),
    ]:
        config = DiTConfig(width=width, depth=depth, heads=heads, patch=2)
        with torch.device("meta"):
            network = DiT((4, 32, 32), (8, 32, 32), 1000, config)
        assert round(sum(p.numel() for p in network.parameters()) / 1e6) == pytest.approx(millions, abs=1)


# At the start


def test_every_block_is_the_identity_and_the_output_zero_at_the_start():
    torch.manual_seed(0)
    network = DiT((2, 8, 8), (4, 8, 8), 3, SMALL)
    assert not network(torch.randn(2, 2, 8, 8), torch.tensor([3.0, 700.0])).any()
    tokens, steering = torch.randn(2, 16, 24), network.modulation(torch.randn(2, 24))
    assert torch.equal(network.blocks[0](tokens, steering[:, : 6 * 24]), tokens)


# Patches and positions


@pytest.mark.parametrize(
    ("shape", "patch"), [((3, 12), (4,)), ((2, 6, 8), (3, 2)), ((1, 5, 7), (1, 1)), ((2, 4, 6, 8), (2, 3, 4))]
)
def test_patches_lie_where_they_were_cut(shape, patch):
    x = torch.randn(2, *shape)
    tokens = patchify(x, patch)
    assert torch.equal(unpatchify(tokens, shape[1:], patch), x)
    grid = [whole // places for whole, places in zip(shape[1:], patch, strict=True)]
    last = tokens[1].unflatten(0, grid)[(-1,) * len(grid)]  # the patch in the far corner
    corner = x[1][(slice(None), *(slice(-places, None) for places in patch))]
    assert torch.equal(last, corner.movedim(0, -1).flatten())


def test_positions_are_those_of_diffusers_in_two_dimensions():
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    expected = get_2d_sincos_pos_embed(24, 6, base_size=6)
    torch.testing.assert_close(positions((6, 6), 24), expected.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [2, 6, 8, 14, 24])
@pytest.mark.parametrize("grid", [(5,), (4, 3), (2, 3, 4)])
def test_positions_of_a_part_are_those_of_the_whole(width, grid):
    whole = positions(tuple(n + 2 for n in grid), width).unflatten(0, tuple(n + 2 for n in grid))
    part = positions(grid, width).unflatten(0, grid)
    assert part.shape == (*grid, width)
    assert torch.equal(part, whole[tuple(slice(n) for n in grid)])


def test_positions_tell_all_places_apart():
    where = positions((4, 5, 6), 24)
    assert (torch.cdist(where, where) + 9 * torch.eye(120, dtype=torch.float64)).min() > 0.1


def test_swapping_the_axes_of_image_patches_and_positions_swaps_those_of_the_output(monkeypatch):
    torch.manual_seed(0)
    network = perturbed(DiT((2, 4, 6), config=DiTConfig(width=24, depth=2, heads=3, patch=1)).double())
    x, levels = torch.randn(2, 2, 4, 6, dtype=torch.float64), torch.tensor([5.0, 600.0])
    expected = network(x, levels)
    swapped = lambda grid, width, device=None: (
        positions(grid[::-1], width).unflatten(0, grid[::-1]).transpose(0, 1).flatten(0, 1)
    )
    monkeypatch.setattr("unnoise.nn.dit.positions", swapped)
    torch.testing.assert_close(network(x.transpose(2, 3), levels), expected.transpose(2, 3))


def test_without_positions_the_order_of_the_patches_does_not_matter(monkeypatch):
    torch.manual_seed(0)
    network = perturbed(DiT((2, 12), config=DiTConfig(width=24, depth=2, heads=3, patch=3)).double())
    x, levels = torch.randn(2, 2, 12, dtype=torch.float64), torch.tensor([5.0, 600.0])
    order = lambda x: x.unflatten(2, (4, 3))[:, :, [2, 0, 3, 1]].flatten(2)
    assert not torch.allclose(network(order(x), levels), order(network(x, levels)))
    monkeypatch.setattr("unnoise.nn.dit.positions", lambda grid, width, device=None: torch.zeros(1, width))
    torch.testing.assert_close(network(order(x), levels), order(network(x, levels)))


# Sizes


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 16), 4), ((2, 9), 1), ((1, 8, 8), 2), ((3, 6, 14), 2), ((5, 2, 3), 1), ((3, 3, 6, 4), (1, 2, 2))],
)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape, patch):
    torch.manual_seed(0)
    network = perturbed(DiT(shape, config=DiTConfig(width=24, depth=1, heads=3, patch=patch)))
    assert network(torch.randn(2, *shape), torch.tensor([3.0, 700.0])).shape == (2, *shape)
    larger = (shape[0], *(2 * n for n in shape[1:]))
    assert network(torch.randn(2, *larger), torch.zeros(2)).shape == (2, *larger)


def test_other_sizes_may_enter_and_other_channels_not():
    network = DiT((3, 8, 8), config=SMALL)
    assert network(torch.randn(2, 3, 12, 6), torch.zeros(2)).shape == (2, 3, 12, 6)
    with pytest.raises(ShapeError, match=r"expected x of shape \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        network(torch.randn(2, 1, 8, 8), torch.zeros(2))
    with pytest.raises(
        ShapeError, match="size 12 x 5 cannot be cut into patches of 2 x 2: give data of size 12 x 4, or"
    ):
        network(torch.randn(2, 3, 12, 5), torch.zeros(2))


def test_a_patch_that_does_not_divide_the_data_is_refused_with_those_that_do():
    message = "size 28 x 28 cannot be cut into patches of 8 x 8: .* network.patch of 1 or 2 or 4 or 7 or 14 or 28"
    with pytest.raises(IncompatibleParts, match=message):
        DiT((1, 28, 28), config=DiTConfig(width=24, depth=1, heads=3, patch=8))


def test_a_patch_for_another_number_of_axes_is_refused():
    with pytest.raises(
        IncompatibleParts, match=r"network\.patch: expected one number or 2, one for each axis, got \[1, 2, 2\]"
    ):
        DiT((1, 28, 28), config=DiTConfig(width=24, depth=1, heads=3, patch=(1, 2, 2)))


def test_points_and_outputs_of_another_size_are_refused():
    with pytest.raises(IncompatibleParts, match=r"got \(2,\): take the network mlp, network\.name=mlp"):
        DiT((2,))
    with pytest.raises(IncompatibleParts, match=r"expected an output of shape \(C, 8, 8\), got \(1, 4, 4\)"):
        DiT((1, 8, 8), (1, 4, 4), config=SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 31}, "width: must be even, got 31"),
        ({"heads": 7}, "heads: must divide the width 384, got 7"),
        ({"patch": 0}, r"network\.patch: must be at least 1, got 0"),
        ({"patch": [2, 0]}, r"network\.patch: must be at least 1, got 0"),
        ({"dropout": 1.5}, r"network\.dropout: must be at most 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadOption, match=message):
        networks.options({"name": "dit", **options}, "network")


# Options


def test_normalised_queries_and_keys_do_not_feel_their_scale():
    torch.manual_seed(0)
    network = perturbed(DiT((2, 8, 8), config=DiTConfig(width=24, depth=1, heads=3, qk_norm=True)).double())
    x, levels = torch.randn(2, 2, 8, 8, dtype=torch.float64), torch.tensor([5.0, 600.0])
    expected = network(x, levels)
    with torch.no_grad():
        for weight in (network.blocks[0].attention.project_in.weight, network.blocks[0].attention.project_in.bias):
            weight[:48] *= 30  # queries and keys
    torch.testing.assert_close(network(x, levels), expected, rtol=1e-4, atol=1e-4)


def test_dropout_drops_while_training_and_never_after():
    torch.manual_seed(0)
    network = perturbed(DiT((2, 8, 8), config=DiTConfig(width=24, depth=1, heads=3, dropout=0.5)))
    x, levels = torch.randn(2, 2, 8, 8), torch.tensor([5.0, 600.0])
    assert not torch.equal(network(x, levels), network(x, levels))
    network.eval()
    assert torch.equal(network(x, levels), network(x, levels))


def test_channels_last_images_pass_through_and_change_nothing():
    torch.manual_seed(0)
    network = perturbed(DiT((3, 8, 8), config=SMALL).double())
    x, levels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.linspace(0, 999, 4)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), levels), network(x, levels))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_in_bfloat16_it_is_within_two_percent_and_so_are_its_gradients(qk_norm):
    torch.manual_seed(0)
    config = DiTConfig(width=96, depth=4, heads=3, patch=2, qk_norm=qk_norm)
    precise = perturbed(DiT((4, 16, 16), (8, 16, 16), 10, config), 0.05)
    coarse = copy.deepcopy(precise)
    lower(coarse, torch.bfloat16)
    x, levels, labels = torch.randn(8, 4, 16, 16), torch.linspace(0, 999, 8), {"label": torch.arange(8)}
    expected, found = precise(x, levels, labels), coarse(x.bfloat16(), levels, labels)
    assert found.dtype == torch.bfloat16
    pull = torch.randn_like(expected)
    (expected * pull).sum().backward()
    (found * pull).sum().backward()

    def error(a, b):
        return ((a.double() - b.double()).norm() / b.double().norm()).item()

    assert error(found, expected) < 0.02
    pairs = zip(precise.named_parameters(), coarse.parameters(), strict=True)
    errors = {name: error(other.grad, parameter.grad) for (name, parameter), other in pairs}
    assert max(errors.values()) < 0.03, errors
