import pytest
import torch
from torch.utils.checkpoint import checkpoint

from unnoise.nn.dropout import Dropout, address_dropout, kept

KEY = (123456789, 987654321)


def mask(key=KEY, number=0, first=0, share=0.3, shape=(512, 4096)):
    return kept(key, number, first, share, torch.empty(shape))


def addressed(share=0.4, first=0, key=KEY):
    layer = Dropout(share)
    address_dropout(layer, key, first)
    return layer


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_the_share_is_dropped_and_the_mean_stays(share):
    found = 1 - mask(share=share).mean().item()
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / (512 * 4096)) ** 0.5)
    dropped = addressed(share)(torch.ones(512, 4096))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)] if share else [1.0])


@pytest.mark.parametrize("along", ["samples", "places", "layers", "keys"])
def test_no_two_samples_places_layers_or_steps_drop_alike(along):
    """Correlations of independent masks of n values have mean 0 and standard deviation 1/sqrt(n)."""
    if along in ("samples", "places"):
        rows = mask() if along == "samples" else mask().T[:512]
    elif along == "layers":
        rows = torch.stack([mask(number=i, shape=(4, 1024)).flatten() for i in range(200)])
    else:
        rows = torch.stack([mask(key=(KEY[0], i), shape=(4, 1024)).flatten() for i in range(200)])
    found = torch.corrcoef(rows)[*torch.triu_indices(len(rows), len(rows), 1)]
    expected = rows.shape[1] ** -0.5
    assert found.std().item() == pytest.approx(expected, rel=0.03)
    assert found.abs().max().item() < 6 * expected
    assert abs(found.mean().item()) < 4 * expected / len(found) ** 0.5 + 2 / rows.shape[1]


def test_single_samples_and_places_drop_the_share():
    rows, columns = mask().mean(1), mask().mean(0)
    assert rows.std().item() == pytest.approx((0.21 / 4096) ** 0.5, rel=0.15)
    assert columns.std().item() == pytest.approx((0.21 / 512) ** 0.5, rel=0.06)


def test_neighbours_are_independent():
    found = mask().mean().item()
    both = (mask()[:, 1:] * mask()[:, :-1]).mean().item()
    assert both == pytest.approx(found**2, abs=1e-3)
    both = (mask()[1:] * mask()[:-1]).mean().item()
    assert both == pytest.approx(found**2, abs=1e-3)


def test_a_sample_drops_the_same_in_every_part_of_the_batch():
    whole = mask(shape=(7, 3, 5))
    parts = [mask(first=at, shape=(n, 3, 5)) for at, n in ((0, 2), (2, 1), (3, 4))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(mask(first=1, shape=(7, 3, 5)), whole)


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 5, 4), (2, 6, 3, 5, 4), (1, 6, 1, 1), (3, 1, 4, 4)])
def test_the_order_in_memory_changes_no_mask_and_is_kept(shape):
    plain = torch.ones(shape)
    last = plain.movedim(1, -1).contiguous().movedim(-1, 1)
    a, b = addressed()(plain), addressed()(last)
    assert torch.equal(a, b)
    assert b.stride() == last.stride()


def test_the_gradient_passes_where_values_passed():
    x = torch.randn(4, 3, 8, dtype=torch.float64, requires_grad=True)
    layer = addressed(0.25)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0).double() * (1 / 0.75))


def test_what_is_computed_again_on_the_way_back_is_dropped_again():
    x = torch.randn(4, 16, requires_grad=True)
    layer = addressed(0.5, first=3)
    inside = torch.nn.Sequential(torch.nn.Linear(16, 16), layer, torch.nn.Tanh(), layer)
    straight = torch.autograd.grad(inside(x).sum(), x)[0]
    again = torch.autograd.grad(checkpoint(inside, x, use_reentrant=False).sum(), x)[0]
    assert torch.equal(straight, again)


def test_nothing_is_dropped_where_no_gradient_is_wanted_or_training_is_over():
    x = torch.ones(4, 16)
    with torch.no_grad():
        assert addressed()(x) is x
    assert addressed().eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_all_can_be_dropped():
    assert torch.equal(addressed(1.0)(torch.ones(4, 16)), torch.zeros(4, 16))
    assert torch.equal(Dropout(1.0)(torch.ones(4, 16)), torch.zeros(4, 16))


def test_before_an_address_torch_says_what_is_dropped():
    x = torch.ones(4, 16)
    torch.manual_seed(0)
    found = Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(found, torch.nn.functional.dropout(x, 0.5))


def test_layers_are_numbered_in_the_order_of_the_network():
    network = torch.nn.Sequential(Dropout(0.1), torch.nn.Sequential(torch.nn.Tanh(), Dropout(0.2)))
    address_dropout(network, KEY, 5)
    assert [network[0].address, network[1][1].address] == [(KEY, 0, 5), (KEY, 1, 5)]


def test_a_compiler_that_is_kept_from_it_compiles_nothing_anew_for_another_address():
    from torch._dynamo.testing import CompileCounter

    network = torch.nn.Sequential(torch.nn.Tanh(), Dropout(0.5), torch.nn.Tanh())
    network[1].keep_from_compiler()
    counter, x = CompileCounter(), torch.randn(4, 16)
    compiled = torch.compile(network, backend=counter)
    numbers = []
    for step in range(4):
        address_dropout(network, (step, step))
        assert torch.equal(compiled(x), network(x))
        numbers.append(counter.frame_count)
    assert numbers[0] > 0
    assert len(set(numbers)) == 1
