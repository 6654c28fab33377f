"""Noise from one path: its law, and that it is the same path for other steps."""

import math

import numpy as np
import pytest
import torch

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.base import time_at
from unnoise.process.cosine import CosineSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.base import sample
from unnoise.samplers.brownian import BrownianNoise
from unnoise.samplers.ddpm import DDPMSampler
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler

LIKE = torch.empty(3000, 2, dtype=torch.float64)


def source(schedule, seed=0, n=3000):
    return BrownianNoise(seed, range(n), schedule)


def along(schedule, times):
    path = source(schedule)
    return torch.stack([path(LIKE, t, s) for t, s in zip(times[:-1], times[1:], strict=True)])


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), VarianceExplodingSchedule()], ids=str)
def test_increments_are_independent_and_standard_normal(schedule):
    z = along(schedule, grids.uniform(40)[:-1].tolist()).flatten(1)
    count = z.shape[1]
    assert float(z.mean(1).abs().max()) < 4.5 / count**0.5
    assert float((z.var(1) - 1).abs().max()) < 4.5 * (2 / count) ** 0.5
    assert float(((z**4).mean(1) - 3).abs().max()) < 5 * (96 / count) ** 0.5
    between = torch.corrcoef(z) - torch.eye(len(z))
    assert float(between.abs().max()) < 4.8 / count**0.5


def test_a_long_step_is_the_sum_of_its_parts_on_the_clock_of_the_signal_to_noise_ratio():
    schedule = LinearSchedule()
    path = source(schedule)
    # Points of the path: log-SNRs that are whole numbers of 1 / 256.
    ends = [-3.0, -1.25, 0.5, 2.0]
    times, clock = [time_at(schedule, e) for e in ends], [math.exp(e) for e in ends]
    parts = [math.sqrt(clock[i + 1] - clock[i]) * path(LIKE, times[i], times[i + 1]) for i in range(3)]
    whole = math.sqrt(clock[3] - clock[0]) * path(LIKE, times[0], times[3])
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-9)


def test_the_path_depends_neither_on_the_order_of_questions_nor_on_the_batch():
    schedule, times = CosineSchedule(), grids.uniform(9)[:-1].tolist()
    pairs = list(zip(times[:-1], times[1:], strict=True))
    like = torch.empty(4, 3, 2)
    there, back = BrownianNoise(5, [9, 2, 40, 7], schedule), BrownianNoise(5, [9, 2, 40, 7], schedule)
    forwards = [there(like, *pair) for pair in pairs]
    backwards = [back(like, *pair) for pair in reversed(pairs)][::-1]
    alone = BrownianNoise(5, [40], schedule)
    for one, other, pair in zip(forwards, backwards, pairs, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one[2:3], alone(like[:1], *pair))
    assert not torch.equal(forwards[0], BrownianNoise(6, [9, 2, 40, 7], schedule)(like, *pairs[0]))
    assert torch.equal(there(torch.empty(4, 5), *pairs[0]), back(torch.empty(4, 5), *pairs[0]))


def test_what_the_path_cannot_tell_has_noise_of_its_own():
    schedule = LinearSchedule()
    path, plain = source(schedule, n=5), NoiseSource(0, range(5))
    like = torch.empty(5, 2)
    for t, s, draw in ((0.5, 0.5 - 1e-7, 0), (0.5, 0.4, 1), (0.4, 0.5, 0)):
        assert torch.equal(path(like, t, s, draw), plain(like, t, s, draw))
    assert torch.equal(path.start((2,)), plain.start((2,)))


@pytest.mark.parametrize("sampler", [DPMSolverPPSampler(sde=True), DDPMSampler()], ids=["2M SDE", "DDPM"])
def test_a_few_steps_more_give_nearly_the_same_samples(sampler):
    schedule = CosineSchedule()
    oracle = GaussianMixtureOracle(
        torch.tensor([[1.0, 0.3], [-0.8, 0.6]]), torch.tensor([0.5, 0.3]), torch.tensor([0.6, 0.4]), schedule
    )
    x = NoiseSource(0, range(1000)).start((2,), torch.float64)

    def change(noise):
        ends = [sample(sampler, oracle, x, grids.log_snr(n, schedule), noise=noise) for n in (40, 44)]
        return float((ends[0] - ends[1]).square().mean().sqrt())

    spread = float(np.hypot(*oracle.sample(5000).std(0).tolist())) / math.sqrt(2)
    assert change(source(schedule, n=1000)) < 0.35 * spread
    assert change(NoiseSource(0, range(1000))) > 0.8 * spread
