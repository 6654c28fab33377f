"""The proof of samplers: its problems against independent ones, and that it finds what is wrong."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import IncompatibleParts, UnknownName
from unnoise.evaluation.proof.base import FIELD
from unnoise.evaluation.proof.problems import (
    MIXTURE,
    NORMAL,
    POINT,
    ExactDenoiser,
    NormalFlow,
    end_of_flow,
    response,
    start,
)
from unnoise.evaluation.proof.samplers import CHECKS, MEANING, chosen, proof
from unnoise.options import option
from unnoise.process.base import scales
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import Sampler, Stepped, fresh_noise_step, samplers, shares, toward
from unnoise.samplers.ddim import DDIMSampler

on_the_field = pytest.mark.parametrize("schedule", FIELD.values(), ids=FIELD)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


# The problems


def oracles(data, schedule):
    """The library's own oracle for each number of a sample."""
    for c, m, s, b in zip(data.centre, data.half, data.std, data.tilt, strict=True):
        upper = 1 / (1 + math.exp(-2 * b))
        yield GaussianMixtureOracle(f64([[c + m], [c - m]]), f64([s, s]), f64([upper, 1 - upper]), schedule)


@on_the_field
@pytest.mark.parametrize("t", [1e-3, 0.2, 0.7, 1.0])
def test_the_denoiser_is_exact(schedule, t):
    x = start(MIXTURE, schedule, t, normal(6, 3))
    found = ExactDenoiser(MIXTURE, schedule)(x, f64(t))
    expected = [oracle(x[:, i : i + 1], f64(t)) for i, oracle in enumerate(oracles(MIXTURE, schedule))]
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-9, atol=1e-11)
    each = ExactDenoiser(MIXTURE, schedule)(x, f64([t, 0.5] * 3))
    torch.testing.assert_close(each[::2], found[::2], rtol=1e-13, atol=1e-14)


def test_the_spread_is_that_of_the_data():
    variances = [float(oracle.sample(200_000).var()) for oracle in oracles(MIXTURE, LinearSchedule())]
    assert MIXTURE.spread == pytest.approx(np.mean(variances) ** 0.5, rel=0.01)
    assert ExactDenoiser(POINT, LinearSchedule()).sigma_data == 1


@on_the_field
@pytest.mark.parametrize(("t", "s"), [(0.95, 0.05), (1.0, 0.0)])
def test_the_end_of_the_flow_is_that_of_another_integrator(schedule, t, s):
    """In u = sigma / (alpha + sigma), with the slope z - D over u from the library's own oracle."""
    x = start(MIXTURE, schedule, t, normal(3, 3))
    (a, sd), (a_s, sd_s) = scales(schedule, t), scales(schedule, s)
    made = list(oracles(MIXTURE, schedule))

    def slope(u, flat):
        z = torch.from_numpy(flat.reshape(3, 3))
        time = schedule.time_of(f64(2 * math.log((1 - u) / u))) if u < 1 else f64(1.0)
        scale = float(schedule.alpha(time) + schedule.sigma(time))
        denoised = torch.cat([o(scale * z[:, i : i + 1], time) for i, o in enumerate(made)], 1)
        return ((z - denoised) / u).numpy().ravel()

    span = sd / (a + sd), max(sd_s / (a_s + sd_s), 1e-5)
    solved = solve_ivp(slope, span, (x / (a + sd)).numpy().ravel(), method="DOP853", rtol=1e-10, atol=1e-11)
    z = torch.from_numpy(solved.y[:, -1].reshape(3, 3))
    if s == 0:  # the last bit of the way stands still
        z = z - span[1] * torch.from_numpy(slope(span[1], solved.y[:, -1])).reshape(3, 3)
    found = end_of_flow(MIXTURE, schedule, x, t, s)
    torch.testing.assert_close(found, (a_s + sd_s) * z, rtol=0, atol=2e-8)


@on_the_field
def test_a_consistency_model_of_normal_data_gives_the_end_of_the_flow(schedule):
    x = start(NORMAL, schedule, 0.8, normal(5, 1))
    torch.testing.assert_close(
        NormalFlow(NORMAL, schedule)(x, f64(0.8)), end_of_flow(NORMAL, schedule, x, 0.8, 0.0), rtol=0, atol=1e-10
    )


def test_the_response_is_what_many_samples_show():
    """Of ten steps of DDIM with fresh noise, which are far off."""
    denoiser, grid = ExactDenoiser(NORMAL, FIELD["cosine"]), grids.uniform(10)
    found = response(DDIMSampler(eta=1.0), denoiser, grid)
    n, generator = 200_000, torch.Generator().manual_seed(0)

    def noise(like, t, s, draw=0):
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    x = start(NORMAL, denoiser.schedule, 1.0, torch.randn(n, 1, dtype=torch.float64, generator=generator))
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        x = DDIMSampler(eta=1.0).step(denoiser, x, t, s, None, noise=noise).x
    assert abs(found.std) > 0.05
    assert found.bent < 1e-12
    assert float(x.mean()) - 1 == pytest.approx(found.mean, abs=0.006)
    assert float(x.std()) - 0.5 == pytest.approx(found.std, abs=0.006)


# Samplers with a fault each


class Deterministic(Sampler):
    """The first-order step; faults are built on it."""

    order = 1

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        denoised = denoiser(x_t, t, cond)
        return Stepped(self.moved(denoised, x_t, denoiser.schedule, t, s), denoised, None)

    def moved(self, denoised, x_t, schedule, t, s):
        return toward(denoised, x_t, schedule, t, s)


@dataclass(frozen=True)
class Wrong(Deterministic):
    """Heun's rule in sigma / alpha, with a weight of 0.6 instead of 0.5: of order 1."""

    order, evaluations = 2, 2
    weight: float = option(0.6, help="of the first slope; 0.5 is right")

    def network_calls(self, grid):
        return 2 * (len(grid) - 1) - int(grid[-1] == 0)

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        first = denoiser(x_t, t, cond)
        x_s = toward(first, x_t, denoiser.schedule, t, s)
        if s == 0:
            return Stepped(x_s, first, None)
        second = denoiser(x_s, s, cond)
        mixed = self.weight * first + (1 - self.weight) * second
        return Stepped(toward(mixed, x_t, denoiser.schedule, t, s), first, None)


@dataclass(frozen=True)
class Calls(Deterministic):
    """Asks once more after the thirteenth step."""

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        made = (state or 0) + 1
        if made == 14:
            denoiser(x_t, t, cond)
        return super().step(denoiser, x_t, t, s, state, cond=cond)._replace(state=made)


@dataclass(frozen=True)
class Mixes(Deterministic):
    """Looks at the other samples of the batch, a little."""

    def moved(self, denoised, x_t, schedule, t, s):
        return super().moved(denoised + 1e-9 * (denoised.mean(0) - denoised), x_t, schedule, t, s)


@dataclass(frozen=True)
class Remembers(Deterministic):
    """Two-step extrapolation whose memory is on the object, and is wiped when a run begins."""

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        if state is None:
            object.__setattr__(self, "memory", None)
        denoised = denoiser(x_t, t, cond)
        before = getattr(self, "memory", None)
        object.__setattr__(self, "memory", denoised)
        ahead = denoised if before is None or s == 0 else denoised + 0.01 * (denoised - before)
        return Stepped(toward(ahead, x_t, denoiser.schedule, t, s), denoised, "begun")


@dataclass(frozen=True)
class StopsShort(Deterministic):
    """Leaves a thousandth of the noise in what should be clean."""

    def moved(self, denoised, x_t, schedule, t, s):
        return super().moved(denoised, x_t, schedule, t, s if s > 0 else t / 1000)


@dataclass(frozen=True)
class AsksTheEnd(Deterministic):
    """Asks at t = 0 too."""

    evaluations = 2

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        stepped = super().step(denoiser, x_t, t, s, state)
        denoiser(stepped.x, s, cond)
        return stepped


@dataclass(frozen=True)
class BeginsLate(Deterministic):
    """Asks a little after the start."""

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        return super().step(denoiser, x_t, t if t < 1 else t - 1e-6, s, state)


@dataclass(frozen=True)
class Infinite(Deterministic):
    """Divides by the signal, which is 0 at the start of some schedules."""

    def moved(self, denoised, x_t, schedule, t, s):
        alpha = scales(schedule, float(t))[0]
        eps = (x_t / alpha - denoised) * (alpha / schedule.sigma(t))
        return schedule.alpha(s) * denoised + schedule.sigma(s) * eps


@dataclass(frozen=True)
class Doubles(Deterministic):
    """Answers in float64 whatever it is given."""

    def moved(self, denoised, x_t, schedule, t, s):
        return super().moved(denoised, x_t, schedule, t, s).double()


@dataclass(frozen=True)
class Quiet(Sampler):
    """Ancestral, with fresh noise that is 3 % too small."""

    order, stochastic = 1, True
    scale: float = option(0.97, help="of the fresh noise; 1 is right")
    last: float = option(0.0, help="noise in the last step")
    limit: float = option(math.inf, help="of what comes out; a sampler with one is not affine")

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        denoised = denoiser(x_t, t, cond)
        kept, fresh = shares(denoiser.schedule, t, s, 1.0)
        x_s = fresh_noise_step(denoised, x_t, denoiser.schedule, t, s, kept, self.scale * fresh, noise)
        if self.last and s == 0:
            x_s = x_s + self.last * noise(x_t, float(t), float(s))
        return Stepped(x_s.clamp(-self.limit, self.limit), denoised, None)


@dataclass(frozen=True)
class Careless(Deterministic):
    """Says that it keeps a tolerance, and makes ten steps of first order."""

    order = 5
    rtol: float = option(1e-4, help="relative")
    atol: float = option(1e-4, help="absolute")

    def network_calls(self, grid):
        return None

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        times = torch.linspace(float(t), float(s), 11, dtype=torch.float64)
        for begin, end in zip(times[:-1], times[1:], strict=True):
            x_t = toward(denoiser(x_t, begin, cond), x_t, denoiser.schedule, begin, end)
        return Stepped(x_t, x_t, None)


@dataclass(frozen=True)
class Breaks(Deterministic):
    """Fails in the middle of a run of more than ten steps."""

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        if state == 10:
            raise ZeroDivisionError("ten\nis too many")
        return super().step(denoiser, x_t, t, s, state)._replace(state=(state or 0) + 1)


@dataclass(frozen=True)
class Choosy(Deterministic):
    """Takes only flow matching."""

    def check(self, denoiser, grid):
        if type(denoiser.schedule).__name__ != "FlowSchedule":
            raise IncompatibleParts("only flow matching")


@pytest.fixture
def mine(monkeypatch):
    """Makes a sampler known as "mine" until the test ends."""

    def make(cls):
        assert "mine" not in samplers
        monkeypatch.setitem(samplers._members, "mine", cls)
        monkeypatch.setattr(cls, "registered_name", "mine", raising=False)

    return make


def row_of(sampler=None):
    (row,) = proof(chosen(["mine"]) if sampler is None else [sampler], quick=True)
    assert list(row.findings) == list(CHECKS) == list(MEANING)
    return row


@pytest.mark.parametrize(
    ("cls", "where", "said"),
    [
        (Wrong, {"measured", "to data"}, "expected at least 1.75, for a stated order of 2"),
        (Calls, {"calls"}, "301 calls in 300 steps|1,001 calls in 1,000 steps|expected the"),
        (Mixes, {"batch"}, "in a batch of 3 and alone; expected at most 1e-12"),
        (Remembers, {"interleaved"}, "expected none"),
        (StopsShort, {"ends"}, "from where it must end"),
        (AsksTheEnd, {"ends"}, "no call at t = 0"),
        (BeginsLate, {"ends"}, "first call at the start"),
        (Infinite, {"ends", "to data"}, "SamplingDiverged|ZeroDivisionError"),
        (Doubles, {"ends"}, "expected torch.float32"),
        (Quiet, {"spread"}, "expected at most 0.015"),
        (Careless, {"measured"}, "in units of the tolerance"),
        (
            Breaks,
            {"measured", "to data", "calls", "ends", "batch", "interleaved"},
            "ZeroDivisionError: ten is too many",
        ),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_a_fault_is_found_where_it_is(mine, cls, where, said):
    mine(cls)
    row = row_of()
    assert row.wrong.keys() == where, {name: each for name, each in row.wrong.items()}
    for finding in row.wrong.values():
        assert any(part in finding.note for part in said.split("|")), finding


def test_the_order_measured_is_the_order_there_is(mine):
    mine(Wrong)
    wrong, right = row_of(), row_of(Wrong(weight=0.5))
    assert wrong.findings["measured"].value == pytest.approx(1, abs=0.1)
    assert right.findings["measured"].value == pytest.approx(2, abs=0.1)
    assert not right.wrong
    assert (wrong.label, right.label) == ("mine", "mine weight=0.5")


def test_noise_in_the_last_step_is_found(mine):
    mine(Quiet)
    row = row_of(Quiet(scale=1.0, last=0.001))
    assert "no noise to be drawn on the way to clean data" in row.wrong["ends"].note
    assert not row_of(Quiet(scale=1.0)).wrong


def test_what_is_not_affine_is_drawn(mine):
    mine(Quiet)
    right = row_of(Quiet(scale=1.0, limit=30.0)).findings["spread"]
    bent = row_of(Quiet(scale=1.0, limit=1.0)).findings["spread"]
    assert right.good
    assert right.value < 0.01
    assert not bent.good
    assert "4,000 samples" in bent.note


def test_schedules_that_a_sampler_refuses_are_left_out(mine):
    mine(Choosy)
    row = row_of()
    assert not row.wrong
    assert "flow" in row.findings["measured"].note
    assert row.findings["calls"].good


def test_samplers_of_the_library_are_as_they_should_be():
    rows = list(proof(chosen(["euler", "dpmpp_2m", "consistency", "adaptive"]), quick=True))
    names = ["euler", "dpmpp_2m", "dpmpp_2m order=1", "dpmpp_2m sde=True", "consistency", "adaptive"]
    assert [row.label for row in rows] == names
    assert not any(row.wrong for row in rows)
    assert [row.findings["measured"].value for row in rows[:3]] == pytest.approx([1, 2, 1], abs=0.1)
    assert rows[0].findings["calls"].value == sum((1, 2, 3, 7, 13)) * len(grids.GRIDS) + 1000 + 2
    assert rows[4].findings["spread"].value < 1e-12


def test_an_unknown_sampler_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'heun'"):
        chosen(["huen"])
