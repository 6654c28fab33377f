"""What every guidance rule must do, over the whole registry."""

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts
from unnoise.guidance.base import Guided, guidances
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.options import build, option_fields, plain
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers import grids
from unnoise.samplers.base import sample, samplers, trajectory


class Odd(Denoiser):
    """A denoiser whose answer depends on the sample, its time and its label, and that counts its calls."""

    def __init__(self):
        super().__init__()
        self.schedule, self.calls = FlowSchedule(), []

    def forward(self, x_t, t, cond=None):
        self.calls.append(len(x_t))
        label = torch.full((len(x_t),), 9) if cond is None else cond["label"]
        over = [-1, *[1] * (x_t.ndim - 1)]
        t = t.expand(len(x_t)) if t.ndim == 0 else t
        return torch.sin(3 * x_t + label.to(x_t).reshape(over)) * (1 - t.to(x_t).reshape(over) / 2)

    def null_condition(self, batch, device=None):
        return {"label": torch.full((batch,), 9)}


def helpers(schedule):
    """What rules are helped by, by the option that holds it."""
    weak = GaussianMixtureOracle(torch.zeros(2, 2), torch.ones(2), torch.ones(2), schedule, (0, 1))
    return {"weak": weak, "classifier": NoisyClassifier((2,), ("a", "b"))}


def acting(cls, schedule):
    """A rule that changes something."""
    given = {name: network for name, network in helpers(schedule).items() if name in option_fields(cls)}
    return build(cls, cls.neutral | {"scale": 2.0} | given)


@pytest.fixture(params=list(guidances))
def cls(request):
    return guidances[request.param]


def x_of(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3), (3, 2, 2, 3)])
@pytest.mark.parametrize("t", [0.3, [0.1, 0.5, 0.9]])
def test_with_its_neutral_options_it_is_the_bare_denoiser_bit_for_bit_in_one_call(cls, dtype, shape, t):
    denoiser, x, t = Odd(), x_of(shape, dtype), torch.tensor(t, dtype=torch.float64)
    cond = {"label": torch.tensor([0, 1, 2])}
    expected = denoiser(x, t, cond)
    denoiser.calls.clear()
    assert torch.equal(Guided(denoiser, build(cls, cls.neutral))(x, t, cond), expected)
    assert denoiser.calls == [3]


def test_without_a_condition_there_is_nothing_to_steer(cls):
    denoiser, x, t = Odd(), x_of((3, 3)), torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(Guided(denoiser, build(cls, {}))(x, t), denoiser(x, t))


def test_it_keeps_the_schedule_and_the_null_condition(cls):
    denoiser = Odd()
    guided = Guided(denoiser, build(cls, {}))
    assert guided.schedule is denoiser.schedule
    assert guided.null_condition(2)["label"].tolist() == [9, 9]


@pytest.mark.parametrize("sampler", list(samplers))
def test_it_works_under_every_sampler(cls, sampler, mixture):
    guided = Guided(mixture(CosineSchedule()), acting(cls, CosineSchedule()))
    noise, made = NoiseSource(0, range(3)), samplers.build(sampler)
    x, cond = noise.start((2,), torch.float64), {"label": torch.tensor([0, 1, 2])}
    if made.kept_noise(guided.schedule, 0.6, 0.5) is None and cls.registered_name == "cfg_pp":
        with pytest.raises(IncompatibleParts, match="or one that draws no noise"):
            sample(made, guided, x, grids.uniform(8), cond=cond, noise=noise)
    else:
        assert bool(sample(made, guided, x, grids.uniform(8), cond=cond, noise=noise).isfinite().all())


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m", "adaptive", "churn"])
def test_a_neutral_run_is_the_bare_one_bit_for_bit(cls, sampler, mixture):
    denoiser, cond = mixture(CosineSchedule()), {"label": torch.tensor([0, 1, 2])}
    noise = NoiseSource(0, range(3))
    ends = [
        sample(samplers.build(sampler), each, noise.start((2,)), grids.uniform(6), cond=cond, noise=noise)
        for each in (denoiser, Guided(denoiser, build(cls, cls.neutral)))
    ]
    assert torch.equal(*ends)


def test_a_run_beside_another_one_and_some_of_its_samples_alone_come_out_the_same(cls, mixture):
    """No rule remembers: two runs of one object, step by step in turn, and a part of the batch."""
    guided, sampler = Guided(mixture(CosineSchedule()), acting(cls, CosineSchedule())), samplers.build("dpmpp_2m")
    x, cond = x_of((3, 2)), {"label": torch.tensor([0, 1, 1])}
    alone = sample(sampler, guided, x, grids.uniform(5), cond=cond)
    one = trajectory(sampler, guided, x, grids.uniform(5), cond=cond)
    other = trajectory(sampler, guided, -x, grids.uniform(5), cond=cond)
    for _ in range(5):
        last = next(one).x
        next(other)
    assert torch.equal(last, alone)
    some = sample(sampler, guided, x[1:], grids.uniform(5), cond={"label": cond["label"][1:]})
    torch.testing.assert_close(some, alone[1:], rtol=1e-10, atol=1e-10)


def test_help_that_is_only_named_or_missing_is_asked_for(cls):
    if "sha256" not in option_fields(cls):
        return
    denoiser, x, t = Odd(), x_of((3, 2)), torch.tensor(0.3, dtype=torch.float64)
    with pytest.raises(BadOption, match=f"{cls.helper}: must be given"):
        build(cls, cls.neutral | {"scale": 2.0})
    named = build(cls, cls.neutral | {"scale": 2.0, cls.helper: "runs/other"})
    assert guidances.build(guidances.describe(named)) == named
    with pytest.raises(BadOption, match=f"{cls.helper}: 'runs/other' is only a name"):
        Guided(denoiser, named)(x, t, {"label": torch.tensor([0, 1, 2])})


def test_it_is_a_value(cls):
    rule = build(cls, cls.neutral)
    assert build(cls, plain(rule)) == rule
    assert guidances.build(guidances.describe(rule)) == rule
    assert hash(build(cls, plain(rule))) == hash(rule)
    assert set(cls.neutral) <= set(option_fields(cls))
    with pytest.raises(AttributeError):
        rule.scale = 3
