"""Denoisers that see what they estimated before."""

import pytest
import torch
from torch import nn

from unnoise.denoisers.base import REACH, denoisers
from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import ShapeError
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.nn.base import networks
from unnoise.objectives.base import Draws
from unnoise.objectives.hybrid import HybridObjective
from unnoise.objectives.mse import MSEObjective, network_inputs
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.base import family, sample, trajectory

SCALE = 0.8


class Mixing(nn.Module):
    """A network of both halves of its input and the label; it keeps what it was given."""

    def __init__(self, doubled=False):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.doubled, self.seen = doubled, []

    def forward(self, x, noise_level, cond=None):
        self.seen.append(x.detach())
        noisy, recalled = x.chunk(2, dim=1)
        label = 0 if cond is None else cond["label"].to(x).reshape(-1, *[1] * (x.ndim - 1)) / 5
        out = torch.tanh(noisy + label) * self.weight + 0.5 * torch.sin(2 * recalled)
        return torch.cat([out, out], 1) if self.doubled else out

    def null_condition(self, batch, device=None):
        return {"label": torch.full((batch,), 3)}


def made(schedule=None, prediction="velocity", doubled=False):
    network = Mixing(doubled)
    return denoisers[prediction](network, schedule or FlowSchedule(), SCALE, True), network


def some(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


HALF = torch.tensor(0.5, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 3, 4)])
def test_a_denoiser_that_is_told_nothing_sees_zeros_and_one_that_is_told_sees_it_in_units_of_the_data(shape):
    denoiser, network = made()
    x, estimate = some(*shape), some(*shape, seed=1)
    bare = denoiser(x, HALF)
    told = denoiser.recalling(estimate)
    denoiser.recalling(estimate)(x, HALF)
    assert torch.equal(network.seen[0].chunk(2, 1)[1], torch.zeros(shape, dtype=torch.float64))
    torch.testing.assert_close(network.seen[1].chunk(2, 1)[1], estimate / SCALE, rtol=1e-12, atol=0)
    assert torch.equal(network.seen[0].chunk(2, 1)[0], network.seen[1].chunk(2, 1)[0])
    assert torch.equal(denoiser(x, HALF), bare)  # it stayed as it was
    assert told.network is denoiser.network
    assert next(iter(told.parameters())) is network.weight
    assert torch.equal(told.rows(torch.tensor([2, 0, 2])).recalled, estimate[[2, 0, 2]])


def test_an_estimate_far_outside_the_data_is_cut():
    denoiser, network = made()
    denoiser.recalling(torch.full((1, 2), 1e4, dtype=torch.float64))(some(1, 2), HALF)
    assert network.seen[0][0, 2:].tolist() == [REACH, REACH]


def test_an_estimate_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="estimate recalled"):
        made()[0].recalling(some(3, 2))(some(4, 2), HALF)


def test_a_denoiser_that_is_not_self_conditioned_has_nothing_to_recall():
    denoiser = denoisers["v"](None, FlowSchedule())
    assert denoiser.recalling(some(2, 2)) is denoiser
    assert denoiser.rows(torch.tensor([1])) is denoiser
    guided = Guided(denoiser, ClassifierFreeGuidance(2.0))
    assert guided.recalling(some(2, 2)) is guided


# In sampling


STEPS = torch.linspace(1, 0, 5, dtype=torch.float64)


@pytest.mark.parametrize("doubled", [False, True], ids=["plain", "learned variance"])
def test_every_step_is_told_the_estimate_of_the_step_before(doubled):
    schedule = LinearSchedule()
    denoiser, network = made(schedule, "v", doubled)
    if doubled:
        denoiser = LearnedVarianceDenoiser(denoiser)
    (euler,) = family(["euler"])[:1]
    estimates = [step.denoised for step in trajectory(euler, denoiser, some(3, 2), STEPS)]
    recalled = [seen[:, 2:] for seen in network.seen]
    assert torch.equal(recalled[0], torch.zeros(3, 2, dtype=torch.float64))
    for told, estimate in zip(recalled[1:], estimates[:-1], strict=True):
        torch.testing.assert_close(told, (estimate / SCALE).clamp(-REACH, REACH), rtol=1e-12, atol=0)


def test_all_calls_of_a_step_are_told_the_same():
    denoiser, network = made()
    (heun,) = family(["heun"])[:1]
    estimates = [step.denoised for step in trajectory(heun, denoiser, some(3, 2), STEPS)]
    recalled = [seen[:, 2:] for seen in network.seen]
    told = [torch.zeros(3, 2, dtype=torch.float64), *((e / SCALE).clamp(-REACH, REACH) for e in estimates[:-1])]
    expected = [each for each in told for _ in range(2)][: len(recalled)]
    assert len(recalled) == 7
    for mine, wanted in zip(recalled, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=0)


MEMBERS = [s for s in family() if not s.wants_consistency]


@pytest.mark.parametrize("sampler", MEMBERS, ids=str)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_sample_is_the_same_alone_in_a_batch_and_beside_an_interleaved_run_and_calls_are_those_declared(
    sampler, guidance
):
    denoiser, network = made(CosineSchedule(), "v", doubled=getattr(sampler, "variance", None) == "learned")
    if network.doubled:
        denoiser = LearnedVarianceDenoiser(denoiser)
    guided = Guided(denoiser, ClassifierFreeGuidance(guidance))
    grid, x = grids.uniform(4), some(3, 2)
    cond = {"label": torch.tensor([0, 1, 2])}

    def run(rows):
        rows = torch.tensor(rows)
        return trajectory(
            sampler, guided, x[rows], grid, cond={"label": cond["label"][rows]}, noise=NoiseSource(0, rows.tolist())
        )

    together = [step.x for step in run([0, 1, 2])]
    calls = sampler.network_calls(grid)
    assert calls is None or len(network.seen) == calls
    alone = [step.x for step in run([1])]
    one, other = run([0, 2]), run([1])
    interleaved = [(a.x, b.x) for a, b in zip(one, other, strict=True)]
    for whole, single, (pair, beside) in zip(together, alone, interleaved, strict=True):
        torch.testing.assert_close(whole[1:2], single, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(whole[[0, 2]], pair, rtol=1e-9, atol=1e-9)
        assert torch.equal(single, beside)


def test_memory_changes_the_samples():
    denoiser, _ = made()
    (euler,) = family(["euler"])[:1]
    told = sample(euler, denoiser, some(3, 2), STEPS)
    x = some(3, 2)
    for t, s in zip(STEPS[:-1], STEPS[1:], strict=True):
        x = euler.step(denoiser, x, t, s, None).x
    assert not torch.allclose(told, x, atol=1e-3)


def test_both_predictions_of_guidance_are_told_the_guided_estimate():
    denoiser, network = made()
    guided = Guided(denoiser, ClassifierFreeGuidance(3.0)).recalling(some(2, 2, seed=4))
    guided(some(2, 2), HALF, {"label": torch.tensor([0, 1])})
    assert network.seen[0].shape == (4, 4)
    torch.testing.assert_close(network.seen[0][:, 2:], (some(2, 2, seed=4) / SCALE).repeat(2, 1), rtol=1e-12, atol=0)


# In training


@pytest.mark.parametrize("objective", [MSEObjective(), HybridObjective()])
def test_those_who_recall_see_their_own_first_estimate_and_nothing_is_learned_through_it(objective):
    schedule = LinearSchedule()
    denoiser, network = made(schedule, "v", objective.learns_variance)
    if objective.learns_variance:
        denoiser = LearnedVarianceDenoiser(denoiser)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    recalls = torch.tensor([True, False, False, True])
    draws = Draws(some(4, 2), some(4, 2, seed=1), t, None, recalls=recalls)
    prepared = objective.prepare(denoiser, draws)
    losses = objective.losses(denoiser, prepared)
    assert [len(seen) for seen in network.seen] == [2, 4]
    first = denoiser(draws.x_t(schedule), t)
    expected = torch.where(recalls[:, None], (first / SCALE).clamp(-REACH, REACH), 0.0)
    torch.testing.assert_close(network.seen[1][:, 2:], expected.detach(), rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), network.weight)
    fixed = network_inputs(denoiser, prepared)
    # With the estimate as a constant beside the inputs, the gradient is the same.
    plain = denoisers["v"](network, schedule, SCALE, False)
    if objective.learns_variance:
        plain = LearnedVarianceDenoiser(plain)
    (constant,) = torch.autograd.grad(objective.losses(plain, prepared._replace(inputs=fixed)).sum(), network.weight)
    torch.testing.assert_close(gradient, constant, rtol=1e-12, atol=0)


def test_the_loss_of_self_conditioning_is_never_below_the_floor(mixture_oracle):
    oracle = mixture_oracle
    network = networks["mlp"]((4,), (2,)).double()
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    denoiser = denoisers["edm"](network, oracle.schedule, 1.0, True)
    n = 20_000
    t = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.98 + 0.01
    draws = Draws(oracle.sample(n, 0), some(n, 2, seed=3), t, None, recalls=torch.arange(n) % 2 == 0)
    objective = MSEObjective()
    with torch.no_grad():
        losses = objective.losses(denoiser, objective.prepare(denoiser, draws))
    floors = objective.floors(denoiser, oracle, draws)
    assert float(losses.mean()) > float(floors.mean())


@pytest.fixture
def mixture_oracle():
    means = torch.tensor([[1.0, 0.3], [-0.8, 0.6]], dtype=torch.float64)
    return GaussianMixtureOracle(
        means, torch.full((2,), 0.4, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64), FlowSchedule()
    )
