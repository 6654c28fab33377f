"""Low-rank adapters: nothing at the start, the formula of the paper after it, and in and out of the weights."""

import copy

import pytest
import torch
from torch import nn

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.lora import (
    Factors,
    LoRASettings,
    adapters_of,
    attach,
    attach_factors,
    base_layers,
    freeze,
    match_layers,
    merge,
    unmerge,
)
from unnoise.options import build

LAYERS = {
    "linear": (lambda: nn.Linear(6, 10), (5, 7, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 10, 3, padding=1), (5, 6, 9)),
    "conv2d of stride 2": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (5, 6, 9, 8)),
    "conv2d of kernel 1": (lambda: nn.Conv2d(6, 10, 1, bias=False), (5, 6, 4, 4)),
    "conv2d uneven, circular": (
        lambda: nn.Conv2d(6, 10, (3, 5), padding=(1, 2), padding_mode="circular"),
        (5, 6, 9, 8),
    ),
    "conv2d dilated": (lambda: nn.Conv2d(6, 10, 3, dilation=2), (5, 6, 9, 8)),
    "conv2d in groups": (lambda: nn.Conv2d(6, 10, 3, padding=1, groups=2), (5, 6, 9, 8)),
    "conv2d, each channel alone": (lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6), (5, 6, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(6, 10, 3, padding=1), (5, 6, 4, 5, 3)),
}


@pytest.fixture(params=LAYERS)
def case(request):
    """A network of one layer, and an input of it, in float64."""
    make, shape = LAYERS[request.param]
    torch.manual_seed(3)
    return nn.Sequential(make()).double(), torch.randn(shape, dtype=torch.float64)


def learn(network, seed=0):
    """Gives adapters something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in base_layers(network).values():
            for adapter in adapters_of(layer):
                adapter.up.weight.copy_(torch.randn(adapter.up.weight.shape, generator=generator))


def unet(num_classes=3, width=16):
    torch.manual_seed(0)
    config = build(networks.options_class("unet"), {"width": width, "multipliers": (1, 2), "blocks": 1})
    network = networks["unet"]((1, 8, 8), None, num_classes, config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def inputs(batch=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 1, 8, 8, generator=generator)
    return x, torch.linspace(10, 900, batch), {"label": torch.arange(batch) % 3}


def test_fresh_adapters_say_nothing_bit_for_bit(case):
    network, x = case
    before = network(x)
    attach(network, LoRASettings(rank=4))
    assert torch.equal(network(x), before)


def test_what_is_added_is_the_product_of_the_two_matrices_in_the_place_of_the_weight(case):
    network, x = case
    plain = copy.deepcopy(network[0])
    attach(network, LoRASettings(rank=4, alpha=6.0))
    learn(network)
    (adapter,) = adapters_of(network[0])
    factors = adapter.factors()
    assert factors.scale == 1.5
    groups, rank = getattr(plain, "groups", 1), 4
    assert factors.down.shape == (rank * groups, *plain.weight.shape[1:])
    assert factors.up.shape[:2] == (len(plain.weight), rank)
    # Written out one output channel at a time, from the definition.
    delta = torch.zeros_like(plain.weight)
    per_group = len(plain.weight) // groups
    for out in range(len(plain.weight)):
        for r in range(rank):
            delta[out] += 1.5 * factors.up[out, r].reshape(()) * factors.down[(out // per_group) * rank + r]
    torch.testing.assert_close(factors.delta(), delta.detach(), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        plain.weight += delta
    torch.testing.assert_close(network(x), plain(x), rtol=1e-11, atol=1e-11)


def test_merged_it_says_the_same_and_unmerged_the_weights_are_back(case):
    network, x = case
    attach(network, LoRASettings(rank=4))
    learn(network)
    before, weight = network(x), network[0].weight.detach().clone()
    merge(network)
    assert not torch.equal(network[0].weight, weight)
    torch.testing.assert_close(network(x), before, rtol=1e-11, atol=1e-11)
    merge(network)  # a second time adds nothing
    torch.testing.assert_close(network(x), before, rtol=1e-11, atol=1e-11)
    unmerge(network)
    torch.testing.assert_close(network[0].weight, weight, rtol=0, atol=1e-14)
    unmerge(network)
    torch.testing.assert_close(network(x), before, rtol=1e-11, atol=1e-11)


def test_in_float32_a_weight_comes_back_to_one_rounding_of_the_larger_value():
    network = unet()
    attach(network, LoRASettings(rank=8))
    learn(network)
    weights = {name: layer.weight.detach().clone() for name, layer in base_layers(network).items()}
    merge(network)
    merged = {name: layer.weight.detach().clone() for name, layer in base_layers(network).items()}
    unmerge(network)
    for name, layer in base_layers(network).items():
        larger = torch.maximum(weights[name].abs(), merged[name].abs())
        # Two roundings, each of half a unit in the last place of a number that is at most this large.
        assert bool(((layer.weight - weights[name]).abs() <= 2.0**-23 * larger).all()), name


def test_several_adapters_with_strengths_add_up():
    network = unet()
    names = match_layers(network, ("middle",))
    layers, generator = base_layers(network), torch.Generator().manual_seed(5)

    def random_factors(rank, scale):
        drawn = {}
        for name in names:
            weight = layers[name].weight
            down = torch.randn(rank, *weight.shape[1:], generator=generator) * 0.1
            up = torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=generator) * 0.1
            drawn[name] = Factors(down, up, scale)
        return drawn

    first, second = random_factors(2, 1.0), random_factors(5, 0.5)
    expected = copy.deepcopy(network)
    with torch.no_grad():
        for name, layer in base_layers(expected).items():
            if name in names:
                layer.weight += (0.7 * first[name].delta() - 1.3 * second[name].delta()).float()
    attach_factors(network, first, 0.7)
    attach_factors(network, second, -1.3)
    torch.testing.assert_close(network(*inputs()), expected(*inputs()), rtol=1e-4, atol=1e-5)
    merge(network)
    for name, layer in base_layers(network).items():
        torch.testing.assert_close(layer.weight, base_layers(expected)[name].weight, rtol=1e-6, atol=1e-7)


def test_strength_nought_is_the_network_itself():
    network = unet()
    before = network(*inputs())
    donor = copy.deepcopy(network)
    attach(donor, LoRASettings())
    learn(donor)
    factors = {name: adapters_of(layer)[0].factors() for name, layer in base_layers(donor).items()}
    attach_factors(network, factors, 0.0)
    assert torch.equal(network(*inputs()), before)


@pytest.mark.parametrize("name", list(networks))
def test_every_layer_of_every_network_can_be_adapted_and_learns(name):
    shapes = {"seed_mlp": (3,), "mlp": (3,)}
    shape = shapes.get(name, (1, 8, 8))
    torch.manual_seed(0)
    network = networks[name](shape, None, 3, None)
    with torch.no_grad():  # layers that are zero at the start would hide those before them
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    names = attach(network, LoRASettings(rank=2))
    assert names == list(base_layers(network))
    assert freeze(network)
    x, levels, cond = torch.randn(3, *shape), torch.tensor([1.0, 300.0, 900.0]), {"label": torch.arange(3)}
    network(x, levels, cond).square().mean().backward()
    for layer_name, layer in base_layers(network).items():
        (adapter,) = adapters_of(layer)
        assert adapter.up.weight.grad is not None, f"{layer_name} is passed by"
        assert float(adapter.up.weight.grad.abs().max()) > 0, layer_name
        assert layer.weight.grad is None


def test_patterns_mean_layers_by_shell_pattern_by_module_and_by_group():
    network = unet()
    layers = list(base_layers(network))
    assert match_layers(network, ("all",)) == layers
    attention = [name for name in layers if ".attention." in name]
    assert attention
    assert match_layers(network, ("attention",)) == attention
    assert match_layers(network, ("*.project_in",)) == [n for n in attention if n.endswith("project_in")]
    assert match_layers(network, ("middle.*",)) == match_layers(network, ("middle",))
    assert match_layers(network, ("enter", "leave")) == ["enter", "leave"]
    linear, conv = match_layers(network, ("linear",)), match_layers(network, ("conv",))
    assert set(linear) | set(conv) == set(layers)
    assert not set(linear) & set(conv)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("mddle.*", r"did you mean 'middle\.\*'"),
        ("attntion", "did you mean 'attention'"),
        ("*.project_inn", r"did you mean '\*\.project_in'"),
        ("*.norm", "groups: all, linear, conv, attention"),
    ],
)
def test_a_pattern_that_matches_nothing_names_what_could_be_meant(pattern, hint):
    with pytest.raises(BadOption, match=hint) as error:
        attach(unet(), LoRASettings(layers=(pattern,)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_a_layer_that_is_not_there_or_has_another_shape_is_named():
    network = unet()
    down, up = torch.zeros(2, 16), torch.zeros(16, 2)
    with pytest.raises(ShapeError, match="a layer nowhere, which the network does not have"):
        attach_factors(network, {"nowhere": Factors(down, up, 1.0)})
    with pytest.raises(ShapeError, match=r"adapts enter\.weight by \(2, 16\) and \(16, 2\).*as \(16, 1, 3, 3\)"):
        attach_factors(network, {"enter": Factors(down, up, 1.0)})


def test_weights_are_frozen_by_pattern():
    network = unet()
    assert freeze(network) == [name for name, _ in network.named_parameters()]
    some = freeze(network, train=("up", "leave"), frozen=("*.bias",))
    assert some
    assert all(name.startswith(("up.", "leave.")) and not name.endswith("bias") for name in some)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == some
    attach(network, LoRASettings(layers=("middle",)))
    learned = freeze(network, train=("embedding.label",))
    assert "embedding.label.weight" in learned
    assert all(".lora." in name for name in learned if name != "embedding.label.weight")
    with pytest.raises(BadOption, match="every weight is frozen"):
        freeze(unet(), frozen=("*",))
    with pytest.raises(BadOption, match=r"'embeddng.label' matches no weight; did you mean"):
        freeze(unet(), train=("embeddng.label",))


def test_the_same_adapters_in_bfloat16_behind_checkpoints_and_compiled():
    network = unet()
    attach(network, LoRASettings(rank=4))
    learn(network)
    freeze(network)
    wanted = network(*inputs()).detach()
    low = copy.deepcopy(network).bfloat16()
    x, levels, cond = inputs()
    with torch.no_grad():
        rough = low(x.bfloat16(), levels, cond).float()
    assert float((rough - wanted).norm() / wanted.norm()) < 0.05

    def gradients(call):
        network.zero_grad()
        call().square().mean().backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    straight = gradients(lambda: network(x, levels, cond))
    assert all(".lora." in name for name in straight)
    again = gradients(
        lambda: torch.utils.checkpoint.checkpoint(lambda y: network(y, levels, cond), x, use_reentrant=False)
    )
    compiled = gradients(lambda: torch.compile(network, backend="aot_eager")(x, levels, cond))
    for name, gradient in straight.items():
        assert torch.equal(again[name], gradient), name
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_dropout_of_an_adapter_acts_only_while_training():
    network = unet()
    attach(network, LoRASettings(rank=4, dropout=0.5))
    learn(network)
    assert torch.equal(network(*inputs()), network(*inputs()))
    network.train()
    assert not torch.equal(network(*inputs()), network(*inputs()))


@pytest.mark.parametrize(
    ("values", "said"), [({"rank": 0}, "at least 1"), ({"alpha": 0.0}, "positive"), ({"dropout": 1.0}, "0.99")]
)
def test_settings_out_of_range_are_refused(values, said):
    with pytest.raises(BadOption, match=said):
        LoRASettings(**values)
