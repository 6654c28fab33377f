"""What every network must do, over the whole registry."""

import copy
import json

import pytest
import torch

from unnoise.errors import BadOption, ShapeError, UnknownName
from unnoise.nn.base import networks
from unnoise.options import build, plain
from unnoise.precision import lower

SHAPES = {
    "unet": (2, 6, 5),
    "ddpm_unet": (2, 9, 8),
    "latent_unet": (2, 5, 6),
    "dit": (2, 4, 6),
    "mmdit": (2, 4, 6),
    "flux": (2, 4, 6),
}
"""The shape of the samples that a network is tried on; three numbers where nothing is said."""

SMALL = {
    "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "head_channels": 8},
    "ddpm_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (0,)},
    "latent_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2},
    "dit": {"width": 16, "depth": 2, "heads": 2, "patch": 2},
    "mmdit": {"width": 16, "depth": 2, "heads": 2, "patch": 2, "qk_norm": True, "attend_twice": 1},
    "flux": {"width": 16, "heads": 2, "double_blocks": 1, "single_blocks": 2, "guidance": False},
}
"""Options that make a network quick to try; the defaults where nothing is said."""

NUM_CLASSES = 4


def make(name, *, out_shape=None, num_classes=NUM_CLASSES, perturbed=True):
    """A small network in float64; perturbed, so that no layer is zero any more."""
    torch.manual_seed(0)
    _, config = networks.options({"name": name, **SMALL.get(name, {})})
    network = networks[name](shape_of(name), out_shape, num_classes, config).double()
    if perturbed:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def shape_of(name):
    return SHAPES.get(name, (3,))


def batch(name, size=4):
    """Samples, noise levels and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, *shape_of(name), dtype=torch.float64, generator=generator)
    levels = 999 * torch.rand(size, dtype=torch.float64, generator=generator)
    return x, levels, {"label": torch.arange(size) % NUM_CLASSES}


@pytest.fixture(params=list(networks))
def name(request):
    return request.param


def test_the_output_has_the_shape_of_the_sample_unless_another_is_asked_for(name):
    x, levels, cond = batch(name)
    network = make(name)
    assert network.out_shape == network.shape == shape_of(name)
    assert network(x, levels, cond).shape == x.shape
    wider = (2 * shape_of(name)[0], *shape_of(name)[1:])
    network = make(name, out_shape=wider)
    assert network.out_shape == wider
    assert network(x, levels, cond).shape == (len(x), *wider)


def test_everything_that_enters_matters_to_every_sample(name):
    x, levels, cond = batch(name)
    network = make(name)
    before = network(x, levels, cond)
    others = [
        network(x + 1, levels, cond),
        network(x, levels + 5, cond),
        network(x, levels, {"label": (cond["label"] + 1) % NUM_CLASSES}),
        network(x, levels, None),
    ]
    for after in others:
        assert ((after - before).flatten(1).abs().amax(dim=1) > 1e-6).all()


def test_a_sample_does_not_depend_on_its_batch(name):
    x, levels, cond = batch(name, 5)
    network = make(name).float()
    together = network(x.float(), levels, cond)
    for i in range(5):
        alone = network(x[i : i + 1].float(), levels[i : i + 1], {"label": cond["label"][i : i + 1]})
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_says_about_the_same(name):
    x, levels, cond = batch(name)
    fine = make(name).float()
    coarse = copy.deepcopy(fine)
    lower(coarse, torch.bfloat16)
    x = x.bfloat16()
    with torch.no_grad():
        expected, found = fine(x.float(), levels.float(), cond), coarse(x, levels.float(), cond)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


def test_a_batch_as_large_as_the_last_dimension_is_not_broadcast(name):
    size = shape_of(name)[-1]
    x, levels, cond = batch(name, size)
    network = make(name)
    alone = [network(x[i : i + 1], levels[i : i + 1], {"label": cond["label"][i : i + 1]}) for i in range(size)]
    torch.testing.assert_close(network(x, levels, cond), torch.cat(alone))


def test_no_condition_is_the_null_condition_exactly(name):
    x, levels, _ = batch(name)
    network = make(name)
    null = network.null_condition(len(x))
    assert null.keys() == set(network.condition_keys) == {"label"}
    assert torch.equal(network(x, levels, None), network(x, levels, null))
    assert torch.equal(network(x, levels, {}), network(x, levels, null))


def test_labels_of_one_batch_are_looked_up_each_for_itself(name):
    x, levels, cond = batch(name)
    network = make(name)
    mixed = network(x, levels, {"label": torch.tensor([0, NUM_CLASSES, 2, NUM_CLASSES])})
    torch.testing.assert_close(mixed[::2], network(x, levels, cond)[::2])
    torch.testing.assert_close(mixed[1::2], network(x, levels)[1::2])


def test_a_network_without_labels_takes_none(name):
    x, levels, cond = batch(name)
    network = make(name, num_classes=0)
    assert network.condition_keys == ()
    assert network.null_condition(len(x)) == {}
    assert network(x, levels).shape == x.shape
    with pytest.raises(BadOption, match="conditioned on nothing, not on label"):
        network(x, levels, cond)


def test_an_unknown_condition_is_refused(name):
    x, levels, cond = batch(name)
    with pytest.raises(BadOption, match="conditioned on label, not on prompt"):
        make(name)(x, levels, {**cond, "prompt": cond["label"]})


@pytest.mark.parametrize("wrong", ["x", "levels", "label"])
def test_wrong_shapes_are_refused(name, wrong):
    x, levels, cond = batch(name)
    if wrong == "x":
        x = x[:, :-1] if x.ndim == 2 else x.transpose(1, 2)
    if wrong == "levels":
        levels = levels[:, None]
    if wrong == "label":
        cond = {"label": cond["label"][:-1]}
    with pytest.raises(ShapeError, match="expected"):
        make(name)(x, levels, cond)


def test_gradients_reach_every_parameter(name):
    x, levels, cond = batch(name)
    network = make(name).train()
    x.requires_grad_()
    network(x, levels, cond).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_noise_levels_of_any_precision_do(name):
    x, levels, cond = batch(name)
    network = make(name).float()
    expected = network(x.float(), levels.round(), cond)
    assert expected.dtype == torch.float32
    assert torch.equal(network(x.float(), levels.round().float(), cond), expected)
    assert torch.equal(network(x.float(), levels.round().long(), cond), expected)


def test_half_precision_stays_half_precision(name):
    x, levels, cond = batch(name)
    network = make(name)
    expected = network(x, levels, cond)
    rounded = network.bfloat16()(x.bfloat16(), levels, cond)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - expected).square().mean() < 0.05 * expected.square().mean()


def test_weights_survive_a_round_trip_through_their_state(name):
    x, levels, cond = batch(name)
    network, other = make(name), make(name, perturbed=False)
    assert not torch.equal(network(x, levels, cond), other(x, levels, cond))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x, levels, cond), other(x, levels, cond))


def test_options_survive_a_round_trip_through_plain_values(name):
    _, config = networks.options({"name": name, **SMALL.get(name, {})})
    again = build(networks.options_class(name), json.loads(json.dumps(plain(config))))
    assert again == config
    assert networks[name](shape_of(name), None, 0, config).config == config
    assert networks[name](shape_of(name)).config == networks.options(name)[1]


def test_every_option_says_what_it_is(name):
    assert all(entry["help"] for entry in networks.schema(name).values())


def test_an_unknown_option_is_refused_with_its_path(name):
    with pytest.raises(BadOption, match=r"network\.colour: there is no such option"):
        networks.options({"name": name, "colour": "red"}, "network")


def test_an_unknown_network_is_refused():
    with pytest.raises(UnknownName, match="no network is called 'unett'; did you mean 'unet'"):
        networks["unett"]
