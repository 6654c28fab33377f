"""An update with all that goes with it, by the kernel and by torch, against torch's own parts in float64."""

import pytest
import torch
from torch import nn

from unnoise.nn.kernels import update
from unnoise.nn.kernels.library import library
from unnoise.training.averages import ExponentialAverage, PowerAverage
from unnoise.training.settings import TrainingSettings
from unnoise.training.state import TrainState

SIZES = (1, 7, 16, 4095, 4096, 4097, 10_001)
LARGE = 3 * 2**17 + 5  # numbers that several threads share


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """With the kernel, where there is a compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr(update, "library", lambda: None)


class Holder(nn.Module):
    """Vectors of some sizes, and a matrix."""

    def __init__(self, sizes, dtype=torch.float32):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        made = [torch.randn(n, generator=g) for n in sizes] + [torch.randn(5, 3, generator=g)]
        self.held = nn.ParameterList([nn.Parameter(each.to(dtype)) for each in made])


def run(sizes=SIZES, dtype=torch.float32, steps=20, spoilt=None, **settings):
    """A state after some updates whose gradients are given, and the norms that were told."""
    given = {"warmup": 0, "decay": "constant", "lr": 1e-2, "clip": 0.0, **settings}
    state, norms = TrainState(Holder(sizes, dtype), TrainingSettings(**given)), []
    for step in range(steps):
        g = torch.Generator().manual_seed(step + 1)
        for view in state.gradients.views:
            view.copy_(torch.randn(view.shape, generator=g) * 0.1 * (step + 1))
        if spoilt is not None:
            state.gradients.views[0][0] = spoilt
        norms.append(state.update())
        assert not state.gradients.vector.any()
    return state, torch.stack(norms)


def parts(state):
    return {**{name: flat.vector for name, flat in state._held().items()}, "updates": state.memory.updates}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("only", ["all", "matrices"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("clip", [0.0, 5.0])
def test_twenty_updates_are_those_of_float64(clip, weight_decay, only):
    averages = ExponentialAverage(0.5), PowerAverage(0.1)  # whose shares lie on both sides of a half
    told = {"clip": clip, "weight_decay": weight_decay, "weight_decay_on": only, "ema": averages}
    (mine, norms), (exact, exact_norms) = run(**told), run(dtype=torch.float64, **told)
    torch.testing.assert_close(norms.double(), exact_norms, rtol=1e-6, atol=0)
    for name, vector in parts(exact).items():
        torch.testing.assert_close(parts(mine)[name].double(), vector.double(), rtol=1e-5, atol=2e-6)


def test_the_kernel_takes_float32_on_a_cpu_and_nothing_else():
    assert update.fused(torch.zeros(3)) == (library() is not None)
    assert not update.fused(torch.zeros(3), torch.zeros(3, dtype=torch.float64))
    assert not update.fused(torch.zeros(3, device="meta"))


def test_a_state_is_updated_by_the_kernel_where_there_is_one(monkeypatch):
    told = []
    monkeypatch.setattr(update, "library", lambda: True)
    monkeypatch.setattr(
        update, "adamw", lambda *vectors, **rest: vectors[1].zero_() is None or told.append(rest) or 2.5
    )
    _, norms = run(steps=1, clip=2.0)
    assert norms.tolist() == [2.5]
    assert told[0]["clip"] == 2.0


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_any_number_of_threads_makes_the_same_bytes(clip):
    if library() is None:
        assert not update.fused(torch.zeros(3))
        return
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        state, norms = run((LARGE,), steps=3, clip=clip)
        found.append({**parts(state), "norms": norms})
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_seen_in_the_norm_and_the_weights(value):
    state, norms = run(steps=1, spoilt=value, clip=1.0)
    assert not torch.isfinite(norms).any()
    assert not state.finite()


@pytest.mark.usefixtures("way")
def test_an_average_that_keeps_nothing_is_the_weights_themselves():
    state, _ = run(steps=1, ema=(PowerAverage(0.1),))
    assert torch.equal(state.average.vector, state.masters.vector)
