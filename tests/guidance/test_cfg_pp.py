"""CFG++ against its own algorithm, written out: the guided estimate, and the unconditional noise put back around it."""

import pytest
import torch

from unnoise.errors import IncompatibleParts
from unnoise.guidance.base import Guided
from unnoise.guidance.cfg_pp import CFGPlusPlus
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample, samplers, trajectory

SCHEDULES = [FlowSchedule(), CosineSchedule(), LinearSchedule()]
COND = {"label": torch.tensor([0, 1, 1])}


def start():
    return torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def algorithm(oracle, x, grid, scale):
    """Algorithm 2 of the paper, in any of the schedules; up and down."""
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        unwanted, wanted = oracle(x, t), oracle(x, t, COND)
        alpha, sigma = oracle.schedule.alpha(t), oracle.schedule.sigma(t)
        noise = (x - alpha * unwanted) / sigma
        x = oracle.schedule.alpha(s) * (unwanted + scale * (wanted - unwanted)) + oracle.schedule.sigma(s) * noise
    return x


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.registered_name)
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 1.7])
def test_a_run_of_ddim_is_that_of_the_paper(plane, schedule, scale):
    oracle, grid = plane(schedule), grids.uniform(7)
    found = sample(samplers.build("ddim"), Guided(oracle, CFGPlusPlus(scale)), start(), grid, cond=COND)
    torch.testing.assert_close(found, algorithm(oracle, start(), grid, scale), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.registered_name)
def test_so_is_the_way_from_data_to_noise(plane, schedule):
    oracle, grid = plane(schedule), torch.linspace(0.05, 0.9, 6, dtype=torch.float64)
    found = sample(samplers.build("ddim"), Guided(oracle, CFGPlusPlus(0.6)), start(), grid, cond=COND)
    torch.testing.assert_close(found, algorithm(oracle, start(), grid, 0.6), rtol=1e-11, atol=1e-11)


class Still:
    """Draws nothing but zeros, so that what is kept of the noise shows."""

    def __call__(self, like, t, s, draw=0):
        return torch.zeros_like(like)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.registered_name)
@pytest.mark.parametrize(
    "sampler",
    [{"name": "ddim", "eta": 1.0}, {"name": "ddim", "eta": 0.4}, {"name": "ancestral"}, {"name": "ddpm"}],
    ids=str,
)
def test_where_noise_is_drawn_afresh_only_what_is_kept_is_unconditional(plane, schedule, sampler):
    """Algorithm 2 with the noise of DDIM's Equation 12: sqrt(sigma_s^2 - eta^2 posterior variance) of it is kept."""
    oracle, scale, eta = plane(schedule), 0.6, sampler.get("eta", 1.0)
    x, grid = start(), torch.tensor([0.6, 0.5, 0.2], dtype=torch.float64)
    found = sample(samplers.build(sampler), Guided(oracle, CFGPlusPlus(scale)), x, grid, cond=COND, noise=Still())
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ((schedule.alpha(at), schedule.sigma(at)) for at in (t, s))
        unwanted, wanted = oracle(x, t), oracle(x, t, COND)
        jump = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
        kept = (sigma_s**2 - eta**2 * jump * sigma_s**2 / sigma_t**2).sqrt()
        noise = (x - alpha_t * unwanted) / sigma_t
        x = alpha_s * (unwanted + scale * (wanted - unwanted)) + kept * noise
    torch.testing.assert_close(found, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampler", [{"name": "churn"}, {"name": "dpmpp_2m", "sde": True}], ids=str)
def test_samplers_that_do_not_say_what_they_keep_are_refused(plane, sampler):
    guided = Guided(plane(CosineSchedule()), CFGPlusPlus(0.6))
    with pytest.raises(IncompatibleParts, match="take ddim, euler, ancestral, ddpm"):
        sample(samplers.build(sampler), guided, start(), grids.uniform(4), cond=COND, noise=Still())


def test_from_clean_data_only_noise_is_put_around_it(plane):
    oracle, x, s = plane(FlowSchedule()), start(), torch.tensor(0.3, dtype=torch.float64)
    guided = Guided(oracle, CFGPlusPlus(0.6))
    found = sample(samplers.build("ddim"), guided, x, torch.tensor([0.0, 0.3], dtype=torch.float64), cond=COND)
    signal = 0.7 * x
    torch.testing.assert_close(found, signal + (signal - 0.7 * oracle(signal, s)), rtol=1e-12, atol=1e-12)


def test_renoised_with_its_own_scale_it_is_classifier_free_guidance_bit_for_bit(plane):
    oracle = plane(CosineSchedule())
    ends = [
        sample(samplers.build("heun"), Guided(oracle, rule), start(), grids.uniform(6), cond=COND)
        for rule in (CFGPlusPlus(3.0, 3.0), ClassifierFreeGuidance(3.0))
    ]
    assert torch.equal(*ends)


def test_at_scale_0_it_is_the_unconditional_model_bit_for_bit(plane):
    oracle, x, grid = plane(CosineSchedule()), start(), grids.uniform(6)
    null = oracle.null_condition(3)
    found = sample(samplers.build("ddim"), Guided(oracle, CFGPlusPlus(0.0)), x, grid, cond=COND)
    assert torch.equal(found, sample(samplers.build("ddim"), oracle, x, grid, cond=null))


def test_the_noise_of_another_scale_lies_between(plane):
    """The formula for any scale of the noise, by the definition of a step."""
    oracle, rule = plane(CosineSchedule()), CFGPlusPlus(1.5, renoise=0.5)
    x, t, s = start(), torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    both = [oracle.null_condition(3), COND]
    unwanted, wanted = (oracle(x, t, cond) for cond in both)
    alpha, sigma = oracle.schedule.alpha(t), oracle.schedule.sigma(t)
    noise = (x - alpha * (unwanted + 0.5 * (wanted - unwanted))) / sigma
    expected = oracle.schedule.alpha(s) * (unwanted + 1.5 * (wanted - unwanted)) + oracle.schedule.sigma(s) * noise
    found = sample(samplers.build("ddim"), Guided(oracle, rule), x, torch.stack([t, s]), cond=COND)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_every_call_of_a_step_takes_the_same_scale_and_the_last_step_the_plain_one(odd):
    denoiser = odd()
    guided = Guided(denoiser, CFGPlusPlus(0.6))
    steps = list(trajectory(samplers.build("heun"), guided, start(), grids.uniform(4), cond=COND))
    assert denoiser.calls == [6] * 7
    t = torch.tensor(0.25, dtype=torch.float64)
    expected = Guided(denoiser, ClassifierFreeGuidance(0.6))(steps[2].x, t, COND)
    torch.testing.assert_close(steps[3].x, expected, rtol=1e-13, atol=1e-13)
    # Asked for no step, it answers as for the last one.
    assert torch.equal(guided(start(), t, COND), Guided(denoiser, ClassifierFreeGuidance(0.6))(start(), t, COND))


def test_it_keeps_its_step_where_some_rows_are_asked_for_and_within_another_rule(plane):
    oracle, t, s = plane(FlowSchedule()), *torch.tensor([0.6, 0.5], dtype=torch.float64)
    guided = Guided(Guided(oracle, CFGPlusPlus(0.6)), ClassifierFreeGuidance(1.0))
    step = float(t), float(s), 0.5  # of a flow, sigma is the time
    whole = guided.stepping(*step)(start(), t, COND)
    factor = 1 / (1 - (0.5 * 0.4) / (0.6 * 0.5))
    torch.testing.assert_close(
        whole, Guided(oracle, ClassifierFreeGuidance(0.6 * factor))(start(), t, COND), rtol=1e-12, atol=1e-12
    )
    some = torch.tensor([2, 0])
    part = guided.stepping(*step).rows(some)(start()[some], t, {"label": COND["label"][some]})
    torch.testing.assert_close(part, whole[some], rtol=1e-12, atol=1e-12)
