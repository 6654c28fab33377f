"""The U-Net on data of one, two and three dimensions."""

import copy
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.blocks import SelfAttention
from unnoise.nn.forgetting import forgotten
from unnoise.nn.unet import UNet, UNetConfig
from unnoise.precision import lower
from unnoise.training.memory import kept_bytes

SMALL = UNetConfig(width=8, multipliers=(1, 2), blocks=1)


@pytest.mark.parametrize(
    "shape",
    [(1, 16), (2, 9), (1, 8, 8), (3, 7, 13), (4, 5, 5), (5, 2, 3), (3, 4, 6, 6), (1, 3, 5, 7)],
)
def test_any_size_in_any_dimension_comes_out_as_it_went_in(shape):
    network = UNet(shape, config=SMALL)
    out = network(torch.randn(2, *shape), torch.tensor([3.0, 700.0]))
    assert out.shape == (2, *shape)
    assert not out.any()  # the last layer is zero until trained


@pytest.mark.parametrize("multipliers", [(1,), (2, 1), (1, 2, 3), (1, 1, 2, 2)])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("width", [6, 9, 16])
def test_any_levels_and_widths_fit_together(multipliers, blocks, width):
    config = UNetConfig(width=width, multipliers=multipliers, blocks=blocks)
    network = UNet((2, 11, 9), (4, 11, 9), num_classes=3, config=config)
    assert network(torch.randn(2, 2, 11, 9), torch.zeros(2)).shape == (2, 4, 11, 9)


def test_every_level_reaches_the_output():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), config=UNetConfig(width=8, multipliers=(1, 1, 1), blocks=1)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    network(x, torch.zeros(1))[0, 0, 0, 0].backward()
    assert (x.grad[0, 0].abs() > 0).all()


@pytest.mark.parametrize(
    ("attention", "levels"),
    [((-1,), {2}), ((0, 2), {0, 2}), ((1, -2), {1}), ((), set()), ((-3, -2, -1), {0, 1, 2})],
)
def test_attention_stands_where_it_is_asked_for(attention, levels):
    network = UNet((1, 8, 8), config=UNetConfig(width=8, multipliers=(1, 1, 1), attention=attention))

    def attends(stages):
        return [isinstance(stage.attention, SelfAttention) for stage in stages]

    for level in range(3):
        assert attends(network.down[level]) == [level in levels] * 2
        assert attends(network.up[2 - level]) == [level in levels] * 2
    assert attends(network.middle) == [bool(levels), False]


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 8, 3), (1, 3), (2, 3, 8, 8)])
def test_data_smaller_than_the_stride_is_refused(shape):
    size = " x ".join(map(str, shape[1:]))
    with pytest.raises(IncompatibleParts, match=f"size {size} is smaller than 4, the stride of 3 levels: give fewer"):
        UNet(shape, config=UNetConfig(width=8))


def test_points_are_refused():
    with pytest.raises(IncompatibleParts, match=r"got \(2,\): take the network mlp, network\.name=mlp"):
        UNet((2,))


def test_an_output_of_another_size_is_refused():
    with pytest.raises(IncompatibleParts, match=r"expected an output of shape \(C, 8, 8\), got \(1, 4, 4\)"):
        UNet((1, 8, 8), (1, 4, 4), config=SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multipliers": []}, "at least one level"),
        ({"attention": [3]}, "levels from -3 to 2, got 3"),
        ({"attention": [0, -4]}, "levels from -3 to 2, got -4"),
        ({"multipliers": [1, 0]}, r"network\.multipliers: must be at least 1, got 0"),
        ({"dropout": 1.5}, r"network\.dropout: must be at most 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadOption, match=message):
        networks.options({"name": "unet", **options}, "network")


def test_other_sizes_may_enter_and_other_channels_not():
    network = UNet((3, 8, 8), config=SMALL)
    assert network(torch.randn(2, 3, 12, 5), torch.zeros(2)).shape == (2, 3, 12, 5)
    with pytest.raises(ShapeError, match=r"expected x of shape \(B, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        network(torch.randn(2, 1, 8, 8), torch.zeros(2))


@pytest.mark.parametrize(("shape", "order"), [((3, 8, 8), torch.channels_last), ((3, 4, 4, 4), torch.channels_last_3d)])
def test_the_order_of_data_and_weights_in_memory_changes_nothing(shape, order):
    torch.manual_seed(0)
    network = perturbed(UNet(shape, config=SMALL)).double()
    x, levels = torch.randn(4, *shape, dtype=torch.float64), torch.linspace(0, 999, 4)
    expected = network(x, levels)
    assert network.float()(x.float(), levels).is_contiguous()
    found = network.double().to(memory_format=order)(x.to(memory_format=order), levels)
    torch.testing.assert_close(found, expected)


def perturbed(network):
    """The network with no weight at zero any more."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("shape", [(3, 16), (3, 9, 12), (3, 4, 6, 6)], ids=str)
def test_bfloat16_stays_close_to_float32_and_so_do_its_gradients(shape):
    torch.manual_seed(0)
    network = UNet(shape, config=UNetConfig(width=32, multipliers=(1, 2), blocks=1))
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    coarse = copy.deepcopy(network)
    lower(coarse, torch.bfloat16)
    assert coarse.norm.weight.dtype == torch.float32
    x, levels, pull = torch.randn(3, *shape), torch.tensor([1.0, 300.0, 999.0]), torch.randn(3, *shape)
    fine, rough = network(x, levels), coarse(x.bfloat16(), levels)
    assert rough.dtype == torch.bfloat16
    assert (rough - fine).norm() < 0.02 * fine.norm()
    fine.backward(pull)
    rough.backward(pull.bfloat16())
    for own in (network, coarse):
        assert all(p.grad.dtype == p.dtype for p in own.parameters())
    one, two = (torch.cat([p.grad.float().flatten() for p in own.parameters()]) for own in (network, coarse))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.999


def test_blocks_that_are_worked_out_again_give_the_same_gradients():
    torch.manual_seed(0)
    network = perturbed(UNet((3, 8, 8), config=SMALL))
    x, levels = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0])
    gradients = []
    for again in (False, True):
        for block in network.checkpointed_blocks() if again else ():
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        network.zero_grad()
        network(x, levels).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert len(network.checkpointed_blocks()) == 6
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_kept_for_the_way_back_is_told_without_computing(dtype):
    network = UNet((3, 16, 16), config=UNetConfig(width=32, multipliers=(1, 2), blocks=1))
    lower(network, dtype)
    told, kept = kept_bytes(network, (3, 16, 16), 4), {}
    own = {p.untyped_storage()._cdata for p in network.parameters()}

    def keep(tensor):
        passing = {each._cdata for each in spared}
        if tensor.untyped_storage()._cdata not in own | passing:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with forgotten() as spared, hooks:  # such hooks forget nothing themselves
        network(torch.zeros(4, 3, 16, 16, dtype=dtype, requires_grad=True), torch.zeros(4))
    # The kernels ask for 512 bytes more than they need; but for these it must not be told too little.
    assert 0.995 < told / sum(storage.nbytes() for storage in kept.values()) < 1.25
