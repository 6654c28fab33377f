"""CFG-Zero*: the length of the unconditional velocity, and steps that stand still."""

import pytest
import torch

from unnoise.guidance.base import Guided
from unnoise.guidance.cfg_zero_star import CFGZeroStar
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.forward import velocity_from_x_0, x_0_from_velocity
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample, samplers, trajectory
from unnoise.samplers.ddpm import DDPMSampler

COND = {"label": torch.tensor([0, 1, 1])}
SCHEDULES = [FlowSchedule(), CosineSchedule(), LinearSchedule()]


def start():
    return torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("t", [0.9, [0.2, 0.5, 0.9]])
def test_on_a_straight_path_it_is_the_formula_of_the_paper(odd, t):
    denoiser, x, t = odd(), start(), torch.tensor(t, dtype=torch.float64)
    wanted, unwanted = (velocity_from_x_0(denoiser(x, t, c), x, denoiser.schedule, t) for c in (COND, None))
    best = (wanted * unwanted).sum(1, keepdim=True) / (unwanted**2).sum(1, keepdim=True)
    velocity = best * unwanted + 4.0 * (wanted - best * unwanted)
    found = Guided(denoiser, CFGZeroStar(4.0, 0.0))(x, t, COND)
    expected = x_0_from_velocity(velocity, x, denoiser.schedule, t)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_no_other_length_comes_nearer_to_the_conditional_velocity(odd):
    """At scale 0 what is left is the unconditional velocity at its best length."""
    denoiser, x, t = odd(), start(), torch.tensor(0.5, dtype=torch.float64)
    wanted, unwanted, found = (
        velocity_from_x_0(clean, x, denoiser.schedule, t)
        for clean in (denoiser(x, t, COND), denoiser(x, t), Guided(denoiser, CFGZeroStar(0.0, 0.0))(x, t, COND))
    )
    least = (found - wanted).norm(dim=1)
    for length in torch.linspace(-3, 3, 61):
        assert bool((least <= (length * unwanted - wanted).norm(dim=1) + 1e-12).all())


def test_with_velocities_of_one_line_it_is_the_conditional_model(odd):
    denoiser, t = odd(), torch.tensor(0.5, dtype=torch.float64)
    x = start()[:, :1]
    torch.testing.assert_close(
        Guided(denoiser, CFGZeroStar(9.0, 0.0))(x, t, COND), denoiser(x, t, COND), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.registered_name)
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_the_first_steps_stand_still_on_the_line_of_the_flow_and_ask_nobody(odd, schedule, sampler):
    denoiser, grid = odd(schedule), grids.uniform(10)
    steps = list(
        trajectory(samplers.build(sampler), Guided(denoiser, CFGZeroStar(3.0, 0.15)), start(), grid, cond=COND)
    )
    assert len(denoiser.calls) == 8
    size = [float(schedule.alpha(t) + schedule.sigma(t)) for t in grid]
    for k in (0, 1):
        torch.testing.assert_close(steps[k].x / size[k + 1], start() / size[0], rtol=1e-12, atol=1e-12)
    assert float((steps[2].x / size[3] - start() / size[0]).abs().max()) > 0.01


def test_without_standing_still_the_first_step_is_made(odd):
    denoiser = odd()
    sample(samplers.build("ddim"), Guided(denoiser, CFGZeroStar(3.0, 0.0)), start(), grids.uniform(10), cond=COND)
    assert len(denoiser.calls) == 10


def test_a_step_to_clean_data_never_stands_still(odd):
    denoiser = odd()
    end = sample(samplers.build("ddim"), Guided(denoiser, CFGZeroStar(3.0)), start(), grids.uniform(1), cond=COND)
    moved = Guided(denoiser, CFGZeroStar(3.0, 0.0))(start(), torch.tensor(1.0, dtype=torch.float64), COND)
    assert torch.equal(end, moved)


def test_samples_stand_still_each_at_its_own_time(odd):
    denoiser, t = odd(), torch.tensor([0.3, 0.99, 0.5], dtype=torch.float64)
    found = Guided(denoiser, CFGZeroStar(3.0))(start(), t, COND)
    moving = Guided(denoiser, CFGZeroStar(3.0, 0.0))(start(), t, COND)
    torch.testing.assert_close(found[[0, 2]], moving[[0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(found[1], start()[1], rtol=1e-12, atol=1e-12)


def test_a_learned_variance_is_the_posteriors_where_nothing_moves(odd, plane):
    denoiser, t = odd(learns_variance=True), torch.tensor(1.0, dtype=torch.float64)
    assert float(Guided(denoiser, CFGZeroStar(3.0)).with_variance(start(), t, COND)[1].abs().max()) == 0
    from unnoise.randomness import NoiseSource

    end = sample(
        DDPMSampler("learned"), Guided(denoiser, CFGZeroStar(3.0)), start(), grids.uniform(5), cond=COND,
        noise=NoiseSource(0, range(3)),
    )  # fmt: skip
    assert bool(end.isfinite().all())


def test_it_differs_from_plain_guidance_by_the_length_alone(plane):
    oracle, x, t = plane(FlowSchedule()), start(), torch.tensor(0.8, dtype=torch.float64)
    plain = Guided(oracle, ClassifierFreeGuidance(4.0))(x, t, COND)
    star = Guided(oracle, CFGZeroStar(4.0, 0.0))(x, t, COND)
    difference, velocity = star - plain, x - oracle(x, t)
    ratio = difference / velocity
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1], rtol=1e-8, atol=1e-8)
