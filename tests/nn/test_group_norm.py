"""Group normalisation with what stands around it, by the kernel and by torch, against its definition in float64."""

import math

import pytest
import torch

from unnoise.nn.group_norm import GroupNorm, best_layout
from unnoise.nn.kernels import group_norm as kernel
from unnoise.nn.kernels.library import library

SHAPES = {
    "pictures": (3, 24, 7, 5),
    "one large picture": (1, 128, 40, 37),
    "no round number of channels": (2, 20, 9, 9),
    "few channels": (4, 6, 6, 2),
    "one place": (5, 16, 1, 1),
    "sequences": (2, 40, 11),
    "videos": (2, 32, 2, 3, 4),
    "many small pictures": (9, 64, 4, 4),
}
GROUPS = {24: 6, 128: 32, 20: 5, 6: 3, 16: 2, 40: 1, 32: 4, 64: 16}
PRECISIONS = {torch.float32: 2e-6, torch.bfloat16: 0.006}


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """With the kernel, where there is a compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr(kernel, "library", lambda: None)
    return request.param


def innermost(x):
    """The same numbers with the channels innermost in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def by_definition(x, weight, bias, added, scale, shift, groups, eps, silu):
    """Every step as it is written, in the dtype that enters."""
    places = (..., *[None] * (x.ndim - 2))
    x = x if added is None else x + added[places]
    parts = x.reshape(len(x), groups, -1)
    mean = parts.mean(2, keepdim=True)
    variance = (parts - mean).square().mean(2, keepdim=True)
    z = ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape)
    z = z * weight[places] + bias[places]
    z = z if scale is None else z * (1 + scale[places])
    z = z if shift is None else z + shift[places]
    return z / (1 + (-z).exp()) if silu else z


def example(shape, dtype, given=("added", "scale", "shift"), silu=True, eps=1e-5, mean=1.0):
    """A module, its inputs, and the same in float64 for the definition."""
    torch.manual_seed(0)
    module = GroupNorm(GROUPS[shape[1]], shape[1], eps, silu)
    torch.nn.init.normal_(module.weight, 1.0, 0.5)
    torch.nn.init.normal_(module.bias)
    x = innermost((mean + 2 * torch.randn(shape)).to(dtype)).requires_grad_()
    lines = {name: torch.randn(shape[:2]).to(dtype).requires_grad_() for name in given}
    return module, x, lines


def compare(module, x, lines, tolerance):
    """Holds values and all gradients against those of the definition."""
    found = module(x, **lines)
    pull = innermost(torch.randn(x.shape).to(x.dtype))
    found.backward(pull)
    exact = {name: each.detach().double().requires_grad_() for name, each in {"x": x, **lines}.items()}
    weight, bias = (each.detach().double().requires_grad_() for each in (module.weight, module.bias))
    rest = (exact.get(name) for name in ("added", "scale", "shift"))
    expected = by_definition(exact["x"], weight, bias, *rest, module.num_groups, module.eps, module.silu)
    expected.backward(pull.double())
    assert found.dtype == x.dtype
    if x.ndim > 3:  # of sequences torch itself does not keep the order
        assert found.stride() == x.stride()
    assert error(found, expected) < tolerance
    for own, other in [(x, exact["x"]), *((lines[name], exact[name]) for name in lines)]:
        assert own.grad.dtype == own.dtype
        assert error(own.grad, other.grad) < 4 * tolerance + 1e-5
    assert error(module.weight.grad, weight.grad) < 4 * tolerance
    assert error(module.bias.grad, bias.grad) < 4 * tolerance


def error(found, expected):
    """How far off, as a share of what is expected."""
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-9)).item()


@pytest.mark.parametrize("shape", [s for n, s in SHAPES.items() if n != "one place"], ids=str)
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_it_is_what_its_definition_says_and_so_are_its_gradients(way, shape, dtype):
    tolerance = PRECISIONS[dtype] * (1 if way == "kernel" else 3)  # torch rounds after every step
    compare(*example(shape, dtype), tolerance)


@pytest.mark.parametrize("given", [(), ("added",), ("scale", "shift"), ("scale",), ("shift",)], ids=str)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_each_part_may_be_left_out(way, given, silu, eps):
    compare(*example((3, 24, 7, 5), torch.float32, given, silu, eps), 2e-6)


def test_one_place_a_sample_works(way):
    compare(*example((5, 16, 1, 1), torch.float32), 2e-6)


def test_a_mean_far_from_zero_costs_no_accuracy(way):
    module, x, _ = example((2, 24, 40, 40), torch.float32, (), False, mean=500.0)
    expected = by_definition(x.double(), module.weight.double(), module.bias.double(), None, None, None, 6, 1e-5, False)
    # float32 has 3e-5 beside 500, about all that may be lost; torch itself loses more.
    assert error(module(x), expected) < (1e-4 if kernel.fits(x) else 0.02)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", [(1, 24, 64, 64), (2, 24, 40, 40), (7, 24, 9, 9)], ids=str)
def test_any_number_of_threads_gives_the_same_bytes(dtype, shape):
    before = torch.get_num_threads()
    outcomes = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        module, x, lines = example(shape, dtype)
        found = module(x, **lines)
        found.backward(innermost(torch.randn(shape).to(dtype)))
        outcomes.append([found, x.grad, module.weight.grad, module.bias.grad, *(each.grad for each in lines.values())])
    torch.set_num_threads(before)
    for other in outcomes[1:]:
        assert all(torch.equal(one, two) for one, two in zip(outcomes[0], other, strict=True))


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_none_spoils_its_group_and_nothing_else(way, dtype, silu, number):
    module, x, _ = example((3, 24, 7, 5), dtype, (), silu)
    with torch.no_grad():
        x[1, 9, 3, 2] = number
    found = module(x)
    assert found[1, 8:12].isnan().any(dim=(1, 2)).all()
    found.float().nansum().backward()
    clean = torch.ones(3, 24, dtype=torch.bool)
    clean[1, 8:12] = False
    assert found[clean].isfinite().all()
    assert x.grad[clean].isfinite().all()
    assert not x.grad[1, 8:12].isfinite().all()


def test_a_gradient_that_is_none_reaches_everything_that_it_is_of(way):
    module, x, lines = example((3, 24, 7, 5), torch.bfloat16)
    pull = torch.ones_like(x)
    pull[2, 5, 0, 0] = math.nan
    module(x, **lines).backward(pull)
    assert x.grad[2, 5].isnan().any()
    assert module.weight.grad[5].isnan()
    assert all(each.grad[2, 5].isnan() for each in lines.values())
    assert x.grad[:2].isfinite().all()


def test_silu_is_right_far_out(way):
    module = GroupNorm(1, 4, silu=True)
    shift = torch.tensor([[-1e4, -95.0, 95.0, 1e4]])
    found = module(innermost(torch.randn(1, 4, 3, 3)), shift=shift)
    assert found[0, :2].abs().max() < 1e-30
    torch.testing.assert_close(found[0, 2:].mean((1, 2)), shift[0, 2:], rtol=0.05, atol=0)


def test_a_second_derivative_is_that_of_the_definition(way):
    torch.manual_seed(0)
    module, x, lines = example((2, 24, 3, 3), torch.float32)
    exact = {name: each.detach().double().requires_grad_() for name, each in {"x": x, **lines}.items()}
    weight, bias = module.weight.double(), module.bias.double()
    pull = torch.randn(x.shape)

    def twice(out, start):
        (slope,) = torch.autograd.grad(out, start, pull.to(out.dtype), create_graph=True)
        return torch.autograd.grad(slope.square().sum(), start)[0]

    lines64 = (exact[name] for name in ("added", "scale", "shift"))
    expected = twice(by_definition(exact["x"], weight, bias, *lines64, 6, 1e-5, True), exact["x"])
    assert error(twice(module(x, **lines), x), expected) < 1e-4


def test_a_directional_derivative_and_a_map_over_samples_work(way):
    module, x, _ = example((2, 24, 3, 3), torch.float32, ())
    x, direction = x.detach(), torch.randn(x.shape)
    _, along = torch.func.jvp(module, (x,), (direction,))
    step = 1e-3 * direction
    with torch.no_grad():
        torch.testing.assert_close(along, (module(x + step) - module(x - step)) / 2e-3, rtol=0.02, atol=0.02)
        mapped = torch.func.vmap(lambda each: module(each[None])[0])(x)
        torch.testing.assert_close(mapped, module(x), rtol=1e-4, atol=1e-5)


def test_data_in_any_order_in_memory_and_of_any_precision_gives_the_same():
    module, x, _ = example((3, 24, 7, 5), torch.float32, ())
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(module(x.contiguous()), expected)
        torch.testing.assert_close(module(x.permute(0, 1, 3, 2)).permute(0, 1, 3, 2), expected)
        doubled = GroupNorm(6, 24, silu=True).double()
        doubled.load_state_dict(module.state_dict())
        torch.testing.assert_close(doubled(x.double()).float(), expected)


def test_a_gradient_in_another_order_in_memory_gives_the_same():
    module, x, _ = example((3, 24, 7, 5), torch.float32, ())
    pull = torch.randn(x.shape)
    first = torch.autograd.grad(module(x), x, pull)[0]
    second = torch.autograd.grad(module(x), x, innermost(pull))[0]
    assert torch.equal(first, second)
    assert torch.autograd.grad(module(x).sum(), x)[0].abs().sum() > 0  # a gradient without memory of its own


def test_an_empty_batch_and_one_without_memory_keep_their_shape():
    module = GroupNorm(6, 24, silu=True)
    assert module(torch.zeros(0, 24, 7, 5)).shape == (0, 24, 7, 5)
    x = torch.zeros(2, 24, 7, 5, device="meta", requires_grad=True)
    out = module.to("meta")(x)
    out.sum().backward()
    assert out.shape == x.grad.shape == x.shape


def test_weights_are_as_those_of_torch():
    module, other = GroupNorm(6, 24), torch.nn.GroupNorm(6, 24)
    assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_pictures_and_videos_get_their_channels_innermost_where_there_is_a_kernel(monkeypatch):
    x = torch.randn(2, 3, 4, 5)
    assert best_layout(x).is_contiguous(memory_format=torch.channels_last) == (library() is not None)
    assert torch.equal(best_layout(x), x)
    video = torch.randn(2, 3, 2, 4, 5)
    assert torch.equal(best_layout(video), video)
    points = torch.randn(2, 3, 4)
    assert best_layout(points) is points
    monkeypatch.setattr("unnoise.nn.group_norm.library", lambda: None)
    assert best_layout(x) is x
