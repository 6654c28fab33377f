"""The gradient that a step adds to the state, by hand and by autograd."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.base import denoisers
from unnoise.nn.mlp import MLP, MLPConfig
from unnoise.nn.seed_mlp import SeedMLP
from unnoise.nn.unet import UNet, UNetConfig
from unnoise.objectives.base import Draws
from unnoise.objectives.mse import MSEObjective
from unnoise.objectives.weightings import MinSNRWeighting
from unnoise.process.cosine import CosineSchedule
from unnoise.randomness import address, torch_seeded
from unnoise.training.gradient import Gradient
from unnoise.training.settings import TrainingSettings
from unnoise.training.state import TrainState

BATCH = 12


def weighty(network, dtype=torch.float64):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.to(dtype)


def prepared(objective, denoiser, dtype=torch.float64, shape=(2,)):
    generator = torch.Generator().manual_seed(1)
    x_0, eps = (torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    t = (torch.randint(1, 1000, (BATCH,), generator=generator) / 1000).double()
    return objective.prepare(denoiser, Draws(x_0, eps, t, {"label": torch.arange(BATCH) % 4}))


def parts(network, prediction="noise"):
    denoiser = denoisers[prediction](network, CosineSchedule())
    return MSEObjective(weighting=MinSNRWeighting()), denoiser, TrainState(network, TrainingSettings(batch_size=BATCH))


def autograd(objective, denoiser, state, examples):
    """The gradient of the mean loss in one vector, and the losses."""
    losses = objective.losses(denoiser, examples)
    losses.mean().backward()
    state.accumulate()
    found = state.gradients.vector.clone()
    state.gradients.vector.zero_()
    return found, losses.detach()


@pytest.mark.parametrize("prediction", ["noise", "edm", "v"])
@pytest.mark.parametrize(
    "make", [lambda: SeedMLP((2,), None, 3), lambda: MLP((2,), None, 3, MLPConfig(width=8))], ids=["seed_mlp", "mlp"]
)
def test_the_gradient_of_a_batch_in_parts_is_that_of_autograd(make, prediction):
    objective, denoiser, state = parts(weighty(make()), prediction)
    examples = prepared(objective, denoiser)
    expected, losses = autograd(objective, denoiser, state, examples)
    gradient = Gradient(objective, denoiser, state, seed=0)
    assert gradient.derivative is not None
    found = [gradient.add(examples.slice(a, b), 1 / BATCH, a) for a, b in ((0, 5), (5, BATCH))]
    torch.testing.assert_close(torch.cat(found), losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.gradients.vector, expected, rtol=1e-12, atol=1e-12)
    assert not any(each.requires_grad for each in found)
    assert all(parameter.grad is None for parameter in state.parameters)


def test_data_in_coarser_numbers_than_the_network_is_no_matter():
    objective, denoiser, state = parts(weighty(SeedMLP((2,), None, 3)))
    examples = prepared(objective, denoiser, torch.float32)
    expected, losses = autograd(objective, denoiser, state, examples)
    found = Gradient(objective, denoiser, state, seed=0).add(examples, 1 / BATCH)
    assert found.dtype == losses.dtype == torch.float32
    torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(state.gradients.vector, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True], ids=["importance", "importance and uncertainty"])
def test_what_goes_beside_the_network_has_its_say(learned):
    _, denoiser, state = parts(weighty(SeedMLP((2,), None, 3)))
    objective = MSEObjective(uncertainty=learned)
    companion = objective.companion(denoiser.schedule)
    examples = prepared(objective, denoiser)
    examples = examples._replace(draws=examples.draws._replace(importance=torch.linspace(0.5, 2, BATCH)))
    for parameter in companion.parameters:
        torch.manual_seed(1)
        nn.init.normal_(parameter, std=0.1)
    gradient, found = Gradient(objective, denoiser, state, 0, companion), []
    assert gradient.derivative is not None
    for derivative in (gradient.derivative, None):
        gradient.derivative = derivative
        losses = gradient.add(examples, 1 / BATCH)
        found.append((losses, state.gradients.vector.clone(), *[p.grad for p in companion.parameters]))
        state.gradients.vector.zero_()
        for parameter in companion.parameters:
            parameter.grad = None
    assert len(found[0]) == 2 + learned
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-8)


def test_a_network_that_sees_its_own_estimate_goes_back_by_hand_too():
    network = weighty(SeedMLP((4,), (2,), 3))
    denoiser = denoisers["v"](network, CosineSchedule(), 1.0, True)
    objective, state = MSEObjective(), TrainState(network, TrainingSettings(batch_size=BATCH))
    examples = prepared(objective, denoiser)
    examples = examples._replace(draws=examples.draws._replace(recalls=torch.arange(BATCH) % 2 == 0))
    expected, losses = autograd(objective, denoiser, state, examples)
    gradient = Gradient(objective, denoiser, state, seed=0)
    assert gradient.derivative is not None
    torch.testing.assert_close(gradient.add(examples, 1 / BATCH), losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.gradients.vector, expected, rtol=1e-12, atol=1e-12)


class Dropping(SeedMLP):
    """A network whose derivative nobody wrote, and which drops half of its input."""

    def forward(self, x, noise_level, cond=None):
        return super().forward(nn.functional.dropout(x, 0.5), noise_level, cond)


def test_what_torch_drops_in_a_network_depends_on_seed_step_and_place_in_the_batch():
    objective, denoiser, state = parts(weighty(Dropping((2,), None, 3)))
    examples = prepared(objective, denoiser)
    gradient = Gradient(objective, denoiser, state, seed=7)
    assert gradient.derivative is None
    first, again, other = (gradient.add(examples, 1 / BATCH, place) for place in (0, 0, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state.gradients.vector.zero_()
    with torch_seeded(address(7, "network", 0, 6), torch.device("cpu")):
        expected, losses = autograd(objective, denoiser, state, examples)
    assert torch.equal(gradient.add(examples, 1 / BATCH, 6), losses)
    torch.testing.assert_close(state.gradients.vector, expected, rtol=1e-12, atol=1e-12)


def test_micro_batches_drop_what_the_whole_batch_drops():
    shape = (2, 8, 8)
    network = weighty(UNet(shape, None, 3, UNetConfig(width=8, multipliers=(1, 2), blocks=1, dropout=0.4)))
    objective, denoiser, state = parts(network)
    examples, found = prepared(objective, denoiser, shape=shape), []
    for size in (BATCH, 1, 3):
        state.gradients.vector.zero_()
        gradient = Gradient(objective, denoiser, state, seed=7)
        losses = [gradient.add(examples.slice(i, i + size), 1 / BATCH, i) for i in range(0, BATCH, size)]
        found.append((torch.cat(losses), state.gradients.vector.clone()))
    assert found[0][1].abs().max() > 1e-3
    for losses, slopes in found[1:]:
        torch.testing.assert_close(losses, found[0][0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, found[0][1], rtol=1e-10, atol=1e-12)


class Halved(MSEObjective):
    """Half of the squared error."""

    def losses(self, denoiser, prepared):
        return super().losses(denoiser, prepared) / 2


def test_an_objective_of_another_kind_is_left_to_autograd():
    _, denoiser, state = parts(weighty(SeedMLP((2,), None, 3)))
    objective = Halved()
    gradient = Gradient(objective, denoiser, state, seed=0)
    assert gradient.derivative is None
    examples = prepared(objective, denoiser)
    expected, losses = autograd(objective, denoiser, state, examples)
    assert torch.equal(gradient.add(examples, 1 / BATCH), losses)
    torch.testing.assert_close(state.gradients.vector, expected, rtol=1e-12, atol=1e-12)
