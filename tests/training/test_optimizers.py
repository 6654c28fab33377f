"""Optimizers against torch's own, or their papers' formulas worked out in float64."""

import math

import pytest
import torch

from unnoise.training.flat import Flat
from unnoise.training.optimizers.base import Rate, optimizers
from unnoise.training.optimizers.muon import COEFFICIENTS, as_matrix, orthogonal, work
from unnoise.training.parallel import Processes

SHAPES = {
    "enter.weight": (6, 3), "a.weight": (8, 5), "a.bias": (8,), "b.weight": (4, 3, 3, 3), "c.weight": (5, 8), "scale": (),
}  # fmt: skip
STEPS = 20


def weights(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in SHAPES.items()}
    made["b.weight"] = made["b.weight"].to(memory_format=torch.channels_last)
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def loss(tensors):
    """Curved differently along every weight, with gradients that mix them."""
    total = sum((tensor * math.sqrt(k + 1)).sin().sum() for k, tensor in enumerate(tensors))
    return total + sum((tensor.square() * 0.1).sum() for tensor in tensors).square() * 1e-3


def gradients(tensors):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    return torch.autograd.grad(loss(leaves), leaves)


class Mine:
    """Weights under one of our optimizers."""

    def __init__(self, optimizer, dtype=torch.float64):
        like = weights(dtype)
        self.weights = Flat(like, dtype)
        self.weights.fill(list(like.values()))
        self.optimizer = optimizers.build(optimizer)
        self.memory = self.optimizer.begin(self.weights, self.weights.another())

    def run(self, steps=STEPS, **rate):
        for step in range(steps):
            self.memory.gradients.fill(gradients(self.weights.views))
            self.optimizer.update(self.memory, Rate(1e-2 / (1 + 0.1 * step), **rate))
        return self.weights.views


def theirs(make, **options):
    leaves = [torch.nn.Parameter(tensor) for tensor in weights().values()]
    optimizer = make(leaves, lr=1e-2, **options)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + 0.1 * step)
        for leaf, gradient in zip(leaves, gradients(leaves), strict=True):
            leaf.grad = gradient
        optimizer.step()
    return leaves


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95)}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95)}),
        ({"name": "sgd", "nesterov": False}, torch.optim.SGD, {"momentum": 0.9}),
        ({"name": "sgd"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
    ids=["adamw", "adam", "sgd", "nesterov"],
)
def test_twenty_steps_are_those_of_torchs_own(name, make, options, decay):
    mine = Mine(name).run(betas=(0.8, 0.95), weight_decay=decay)
    for a, b in zip(mine, theirs(make, weight_decay=decay, **options), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", list(optimizers))
def test_weight_decay_that_spares_vectors_leaves_those_as_without_it(name):
    without, spared, all_of_them = (
        Mine(name).run(1, **rate) for rate in ({}, {"weight_decay": 0.5, "only_matrices": True}, {"weight_decay": 0.5})
    )
    for a, b, c in zip(without, spared, all_of_them, strict=True):
        if a.ndim < 2:
            assert torch.equal(a, b)
        else:
            assert not torch.equal(a, b)
            torch.testing.assert_close(b, c, rtol=1e-13, atol=1e-13)


def test_lion_moves_by_the_sign_of_its_momentum():
    mine = Mine("lion").run(weight_decay=0.3)
    other = [tensor.clone() for tensor in weights().values()]
    momenta = [torch.zeros_like(tensor) for tensor in other]
    for step in range(STEPS):
        rate = 1e-2 / (1 + 0.1 * step)
        for w, m, g in zip(other, momenta, gradients(other), strict=True):
            c = 0.9 * m + 0.1 * g
            w -= rate * (torch.sign(c) + 0.3 * w)
            m.copy_(0.99 * m + 0.01 * g)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_muon_is_jordans_iteration_on_matrices_and_adamw_on_the_rest():
    mine = Mine("muon").run(weight_decay=0.2, betas=(0.8, 0.95))
    other = weights()
    first, second = ({name: torch.zeros_like(t) for name, t in other.items()} for _ in range(2))
    for step in range(STEPS):
        rate = 1e-2 / (1 + 0.1 * step)
        for (name, w), g in zip(other.items(), gradients(list(other.values())), strict=True):
            w *= 1 - rate * 0.2
            if w.ndim < 2 or name == "enter.weight":
                first[name] = 0.8 * first[name] + 0.2 * g
                second[name] = 0.95 * second[name] + 0.05 * g**2
                m, v = first[name] / (1 - 0.8 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
                w -= rate * m / (v.sqrt() + 1e-8)
                continue
            first[name] = 0.95 * first[name] + 0.05 * g
            x = (0.05 * g + 0.95 * first[name]).flatten(1)
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            w -= rate * 0.2 * math.sqrt(max(x.shape)) * x.reshape(w.shape)
    for a, b in zip(mine, other.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_every_matrix_is_turned_by_one_process_and_none_has_much_more_to_do():
    sides = [(64, 576)] * 5 + [(128, 1152)] * 4 + [(32, 32)] * 7 + [(128, 512)] * 3
    matrices, muon = [torch.empty(side) for side in sides], optimizers.build("muon")
    shares = [muon._alike(matrices, Processes(rank, 3)) for rank in range(3)]
    assert sorted(i for share in shares for places in share for i in places) == list(range(len(sides)))
    assert all(len({sides[i] for i in places}) == 1 for share in shares for places in share)
    costs = [sum(work(sides[i], muon.iterations) for places in share for i in places) for share in shares]
    assert max(costs) < sum(costs) / 3 + work((128, 1152), muon.iterations)


def test_muon_on_one_matrix_is_torchs_own_in_its_bfloat16():
    torch.manual_seed(0)
    leaf = torch.nn.Parameter(torch.randn(12, 20))
    flat = Flat({"a.weight": leaf.detach()})
    flat.fill([leaf.detach()])
    optimizer = optimizers.build({"name": "muon", "precision": "bf16"})
    memory = optimizer.begin(flat, flat.another())
    peer = torch.optim.Muon([leaf], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(STEPS):
        leaf.grad = leaf.detach().cos()
        memory.gradients.fill([flat.views[0].cos()])
        peer.step()
        optimizer.update(memory, Rate(1e-2, weight_decay=0.1))
    moved = (flat.views[0] - leaf).norm() / (STEPS * 1e-2 * 0.2 * math.sqrt(20) * math.sqrt(12))
    assert moved < 0.01


@pytest.mark.parametrize("columns", [15, 30])  # with all columns in the loop, and without them
def test_newton_schulz_brings_singular_values_together_and_keeps_their_vectors(columns):
    x = torch.randn(3, 10, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    assert float(s.max() / s.min()) > 2
    turned = orthogonal(x, 5)
    inside = u.mT @ turned @ vh.mT
    values = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(values), rtol=0, atol=1e-12)
    assert float(values.min()) > 0.65
    assert float(values.max()) < 1.25
    factor = u @ vh
    assert float((turned * factor).sum() / turned.norm() / factor.norm()) > 0.98


@pytest.mark.parametrize("columns", [24, 160])
def test_newton_schulz_in_single_precision_is_its_polynomial_of_singular_values_of_any_size(columns):
    a, b, c = COEFFICIENTS
    rng = torch.Generator().manual_seed(0)
    u, vh = (torch.linalg.qr(torch.randn(n, 16, generator=rng, dtype=torch.float64))[0] for n in (16, columns))
    values = torch.logspace(0, -5, 16, dtype=torch.float64)
    wanted = values / values.norm()
    for _ in range(5):
        wanted = a * wanted + b * wanted**3 + c * wanted**5
    turned = orthogonal((u * values @ vh.mT).float()[None], 5)[0].double()
    torch.testing.assert_close(turned, u * wanted @ vh.mT, rtol=0, atol=3e-4)


def test_first_and_last_layers_and_what_stands_for_words_are_left_to_adamw():
    optimizer = optimizers.build("muon")
    weight = torch.ones(4, 6)
    left = (
        "enter.weight",
        "network.enter.weight",
        "network.leave.weight",
        "label.weight",
        "text.tokens.weight",
        "text.positions",
    )
    assert not any(optimizer._takes(name, weight) for name in left)
    turned = "network.embedding.enter.weight", "network.down.0.weight", "text.blocks.0.attention.query.weight"
    assert all(optimizer._takes(name, weight) for name in turned)
    assert not optimizers.build({"name": "muon", "beside": ["network.down.*"]})._takes(turned[1], weight)


def test_kernels_are_matrices_that_share_their_memory():
    kernel = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert torch.equal(as_matrix(kernel), kernel.flatten(1))
    last = kernel.to(memory_format=torch.channels_last)
    matrix = as_matrix(last)
    assert matrix.data_ptr() == last.data_ptr()
    assert torch.equal(matrix, last.permute(0, 2, 3, 1).flatten(1))
    assert as_matrix(torch.ones(4, 6).T).shape == (6, 4)


@pytest.mark.parametrize("name", list(optimizers))
def test_what_is_remembered_is_all_that_an_update_depends_on(name):
    straight, first, second = (Mine(name, torch.float32) for _ in range(3))
    straight.run(6)
    first.run(6)
    second.weights.vector.copy_(first.weights.vector)
    slots = dict(second.memory.slots())
    for key, tensor in first.memory.slots():
        slots[key].copy_(tensor)
    for each in (straight, second):
        each.run(4, weight_decay=0.1)
    assert torch.equal(straight.weights.vector, second.weights.vector)
    assert float(second.memory.updates) == 10


def test_moments_have_the_names_of_checkpoints():
    names = {key for key, _ in Mine("adamw").memory.slots()}
    assert names == {f"{kind}/{name}" for kind in ("first_moment", "second_moment") for name in SHAPES} | {"updates"}
    muon = {key for key, _ in Mine("muon").memory.slots()}
    assert muon == names - {f"second_moment/{kind}.weight" for kind in "abc"}


@pytest.mark.parametrize("name", list(optimizers))
def test_the_numbers_between_weights_stay_zero(name):
    mine = Mine(name)
    mine.run(3, weight_decay=0.1)
    assert float(mine.weights.vector.double().norm()) == pytest.approx(
        float(torch.stack([view.norm() for view in mine.weights.views]).norm()), rel=1e-12
    )
