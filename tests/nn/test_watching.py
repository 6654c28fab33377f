import pytest
import torch

from unnoise.errors import IncompatibleParts, ShapeError
from unnoise.nn.attention import CrossAttention
from unnoise.nn.conditions import Context
from unnoise.nn.dit import DiT, DiTConfig
from unnoise.nn.latent_unet import LatentUNet, LatentUNetConfig
from unnoise.nn.unet import UNet
from unnoise.nn.watching import AttentionWatch, looks


def perturbed(network):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network.eval()


NETWORKS = {
    "latent_unet": lambda: LatentUNet(
        (3, 6, 4), config=LatentUNetConfig(width=8, multipliers=(1, 2), blocks=1, attention=(0, 1), heads=2, context=5)
    ),
    "dit": lambda: DiT((3, 6, 4), config=DiTConfig(width=16, depth=2, heads=2, patch=2, context=5)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_of_all_tokens_sum_to_one_everywhere_and_the_network_says_the_same(name):
    network = perturbed(NETWORKS[name]())
    x, level, words = torch.randn(4, 3, 6, 4), torch.full((4,), 300.0), torch.randn(4, 7, 5)
    expected = network(x, level, {"context": words})
    with AttentionWatch(network, (6, 4), samples=2) as watch:
        found = network(x, level, {"context": words})
        network(x, level / 2, {"context": words})
    assert torch.equal(found, expected)
    assert watch.maps.shape == (2, 7, 6, 4)
    torch.testing.assert_close(watch.maps.sum(1), torch.ones(2, 6, 4))
    assert watch.maps.std() > 1e-3
    before = watch.maps
    network(x, level, {"context": words})  # outside
    assert torch.equal(watch.maps, before)


def test_a_place_reads_the_token_that_its_query_points_to():
    torch.manual_seed(0)
    layer = CrossAttention(4, 1, 4)
    with torch.no_grad():
        layer.project_query.weight.copy_(20 * torch.eye(4))
        layer.project_context.weight[:4].copy_(torch.eye(4))
    places = torch.tensor([[2, 0, 1, 3, 2]])
    weights = looks(layer, torch.eye(4)[places], Context(torch.eye(4)[None]))
    # The score of the token that is meant is 20 / sqrt(4), of the others 0.
    expected = torch.full((1, 5, 4), 1 / (3 + torch.tensor(10.0).exp()))
    expected.scatter_(2, places[..., None], (torch.tensor(10.0).exp() / (3 + torch.tensor(10.0).exp())).item())
    torch.testing.assert_close(weights, expected)


def test_the_weights_are_those_that_the_layer_mixes_by():
    torch.manual_seed(0)
    layer = CrossAttention(6, 2, 5, qk_norm=True)
    x, tokens = torch.randn(2, 9, 6), torch.randn(2, 4, 5)
    mask = torch.tensor([[True, True, False, True], [False, False, False, False]])
    with torch.no_grad():  # values that say which token they are, the same in both heads
        layer.project_out.weight.copy_(torch.eye(6))
        layer.project_out.bias.zero_()
    one_hot = torch.eye(4, 3).repeat(1, 2).expand(2, -1, -1)  # (B, tokens, width); the fourth token is all zero
    made = torch.cat([layer.look_up(tokens)[:, :, :6], one_hot], dim=2)
    context = Context(tokens, mask, made)
    mixed = layer(x, context).unflatten(2, (2, 3)).mean(2)
    weights = looks(layer, x, context)
    torch.testing.assert_close(weights[:, :, :3], mixed)
    assert not weights[0, :, 2].any()
    assert not weights[1].any()


def test_a_network_without_cross_attention_and_a_watch_that_saw_nothing_are_refused():
    with pytest.raises(IncompatibleParts, match="'unet' has no cross-attention to look at"):
        AttentionWatch(UNet((3, 8, 8)), (8, 8))
    with pytest.raises(ShapeError, match="nothing was watched"), AttentionWatch(NETWORKS["dit"](), (6, 4)) as watch:
        _ = watch.maps
