"""What every network must do that looks up the tokens of a context, over the whole registry."""

import copy

import pytest
import torch

from unnoise.errors import BadOption, ShapeError
from unnoise.nn.base import networks
from unnoise.nn.conditions import joined, level
from unnoise.objectives.base import drop_conditions
from unnoise.precision import lower
from unnoise.training.execution import checkpoint_blocks

SHAPE, DIM, NUM_CLASSES = (2, 4, 6), 6, 3

SMALL = {
    "latent_unet": {
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (0, 1),
        "heads": 2,
        "context_tokens": 4,
    },
    "dit": {"width": 16, "depth": 3, "heads": 2, "context_tokens": 4, "pooled": 5, "long_skips": True},
    "mmdit": {
        "width": 16,
        "depth": 3,
        "heads": 2,
        "context_tokens": 4,
        "pooled": 5,
        "qk_norm": True,
        "attend_twice": 2,
    },
    "flux": {
        "width": 16,
        "heads": 2,
        "double_blocks": 2,
        "single_blocks": 2,
        "context_tokens": 4,
        "pooled": 5,
        "guidance": True,
    },
}


@pytest.fixture(params=[name for name in networks if "context" in networks.schema(name)])
def name(request):
    return request.param


def make(name, **changes):
    """A small network in float64, with no weight at zero."""
    torch.manual_seed(0)
    _, config = networks.options({"name": name, "context": DIM, **SMALL[name], **changes})
    network = networks[name](SHAPE, None, NUM_CLASSES, config).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for buffer in network.buffers():
            buffer.normal_()
    return network.eval()


def batch(size=3, tokens=5):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
    x, levels = draw(size, *SHAPE), 999 * torch.rand(size, dtype=torch.float64, generator=generator)
    return x, levels, {"context": draw(size, tokens, DIM), "label": torch.arange(size) % NUM_CLASSES}


def longer(cond, more=4):
    """With tokens behind the others that a mask hides."""
    batch, tokens, dim = cond["context"].shape
    garbage = torch.full((batch, more, dim), 7.0, dtype=cond["context"].dtype)
    mask = torch.arange(tokens + more).expand(batch, -1) < tokens
    return {**cond, "context": torch.cat([cond["context"], garbage], dim=1), "context_mask": mask}


def miss(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


# Tokens


def test_every_token_matters_and_their_number_is_free(name):
    x, levels, cond = batch()
    network = make(name)
    before = network(x, levels, cond)
    for token in range(5):
        context = cond["context"].clone()
        context[:, token] += 1
        after = network(x, levels, {**cond, "context": context})
        assert ((after - before).flatten(1).abs().amax(dim=1) > 1e-6).all()
    assert network(x, levels, {"context": cond["context"][:, :2]}).shape == x.shape


def test_no_context_is_the_null_context_exactly(name):
    x, levels, _ = batch()
    network = make(name)
    null = network.null_condition(len(x))
    assert null.keys() == set(network.condition_keys) >= {"context", "label"}
    assert torch.equal(network(x, levels), network(x, levels, null))
    assert torch.equal(network(x, levels, {"context": null["context"]}), network(x, levels))


def test_gradients_reach_every_parameter(name):
    x, levels, cond = batch()
    network = make(name).train()
    cond["context"].requires_grad_()
    network(x, levels, cond).square().sum().backward()
    assert cond["context"].grad.abs().sum() > 0
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_blocks_that_are_checkpointed_have_the_same_gradients(name):
    x, levels, cond = batch()
    network, other = make(name).train(), make(name).train()
    checkpoint_blocks(other)
    cond = longer(cond)
    for each in (network, other):
        each(x, levels, cond).square().sum().backward()
    for parameter, again in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter.grad, again.grad)


# Masks


def test_tokens_that_a_mask_hides_do_not_matter(name):
    x, levels, cond = batch()
    network = make(name)
    expected = network(x, levels, cond)
    torch.testing.assert_close(network(x, levels, longer(cond)), expected)
    every = {**cond, "context_mask": torch.ones(3, 5, dtype=torch.bool)}
    torch.testing.assert_close(network(x, levels, every), expected)
    every["context_mask"][1, 3] = False
    changed = (network(x, levels, every) - expected).flatten(1).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [False, True, False]


def test_in_bfloat16_masks_hide_too_and_so_do_their_gradients(name):
    x, levels, cond = batch()
    network = make(name).float()
    lower(network, torch.bfloat16)
    found = []
    for told in (cond, longer(cond)):
        network.zero_grad()
        out = network(x.bfloat16(), levels, told)
        out.float().square().sum().backward()
        found.append((out, torch.cat([p.grad.flatten().float() for p in network.parameters()])))
    assert miss(found[1][0], found[0][0]) < 0.01
    assert miss(found[1][1], found[0][1]) < 0.03


def test_a_sample_that_reads_no_token_is_a_number_and_so_are_its_gradients(name):
    x, levels, cond = batch()
    network = make(name)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    out = network(x, levels, {**cond, "context_mask": mask})
    torch.testing.assert_close(out[::2], network(x, levels, cond)[::2])
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    "mask", [torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 5), torch.ones(5, dtype=torch.bool)]
)
def test_a_mask_of_another_shape_or_kind_is_refused(name, mask):
    x, levels, cond = batch()
    with pytest.raises(
        ShapeError, match=r"expected a context_mask of booleans, shape \(3, 5\), got torch\.\w+ of shape"
    ):
        make(name)(x, levels, {**cond, "context_mask": mask})


def test_a_mask_is_refused_where_nothing_is_read(name):
    x, levels, _ = batch()
    with pytest.raises(BadOption, match="not on context_mask"):
        make(name, context=0)(x, levels, {"context_mask": torch.ones(3, 5, dtype=torch.bool)})


# Several conditions in one batch


def test_conditions_of_any_lengths_stand_in_one_batch(name):
    x, levels, cond = batch()
    network = make(name)
    short = {**network.null_condition(3), "context": cond["context"][:, :2]}
    long = longer({**network.null_condition(3), **cond})
    expected = torch.cat([network(x, levels, short), network(x, levels, long)])
    twice = torch.cat([x, x]), torch.cat([levels, levels])
    torch.testing.assert_close(network(*twice, joined(short, long)), expected)
    torch.testing.assert_close(network(*twice, joined(network.remember(short), network.remember(long))), expected)
    torch.testing.assert_close(network(*twice, joined(network.remember(short), long)), expected)


def test_dropped_conditions_are_the_null_condition(name):
    x, levels, cond = batch()
    network = make(name)
    null = network.null_condition(3)
    told = {**null, **cond}
    dropped = drop_conditions(told, null, torch.tensor([False, True, False]))
    found = network(x, levels, dropped)
    torch.testing.assert_close(found[1], network(x, levels)[1])
    torch.testing.assert_close(found[::2], network(x, levels, told)[::2])


def test_conditions_that_hold_different_things_are_not_put_together(name):
    _, _, cond = batch()
    with pytest.raises(BadOption, match="must hold the same names, and not all hold label"):
        joined(cond, {"context": cond["context"]})
    assert level(cond, {"label": cond["label"]})[0].keys() == cond.keys()


# What is worked out once


def looked_at(network):
    """Counts the calls of the layers that see nothing but the context."""
    calls = []
    for name, module in network.named_modules():
        if name.endswith("project_context") or name == "read":
            module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_what_a_network_remembers_changes_nothing_and_is_not_asked_for_again(name):
    x, levels, cond = batch()
    network = make(name)
    cond = longer(cond)
    expected = network(x, levels, cond)
    calls = looked_at(network)
    kept = network.remember(cond)
    assert (kept.keys() - cond.keys()) == {network.memory.name}
    before = len(calls)
    assert before > 0
    for _ in range(3):
        torch.testing.assert_close(network(x, levels, kept), expected, rtol=1e-9, atol=1e-9)
    assert len(calls) == before
    network = network.float()
    plain, single = network(x.float(), levels, cond), network(x.float(), levels, network.remember(cond))
    torch.testing.assert_close(single, plain, rtol=1e-6, atol=1e-6)


def test_a_network_reads_only_what_it_remembered_itself(name):
    x, levels, cond = batch()
    network = make(name)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1
    expected = other(x, levels, cond)
    torch.testing.assert_close(other(x, levels, network.remember(cond)), expected)
    both = network.remember(other.remember(cond))
    torch.testing.assert_close(other(x, levels, both), expected)
    torch.testing.assert_close(network(x, levels, both), network(x, levels, cond))


def test_nothing_is_remembered_of_no_context(name):
    network = make(name)
    assert network.remember(None) is None
    labels = {"label": torch.zeros(2, dtype=torch.int64)}
    assert network.remember(labels) is labels
    with pytest.raises(ShapeError, match="expected a context of shape"):
        network.remember({"context": torch.zeros(2, 3)})
