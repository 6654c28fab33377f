"""What each position of a run learns from, where noise, times or memory are not the plain ones."""

import numpy as np
import pytest
import torch

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Dataset, Spec, datasets
from unnoise.denoisers.base import denoisers
from unnoise.denoisers.learned_variance import LearnedVarianceDenoiser
from unnoise.denoisers.v import VDenoiser
from unnoise.errors import IncompatibleParts
from unnoise.nn.base import networks
from unnoise.objectives.base import objectives
from unnoise.process.flow import FlowSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.training.draws import DrawStream, who_recalls
from unnoise.training.validation import Validation, bayes_floor

CPU = torch.device("cpu")


def points(n=500):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(5)) * torch.tensor([1.0, 0.2])
    return Dataset(x, Spec("points", (2,)))


def pictures(n=64):
    x = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    return Dataset(x, Spec("image", (3, 4, 4)))


def denoiser_of(data, self_conditioned=False):
    shape = data.spec.shape
    network = networks["mlp"]((2 * shape[0], *shape[1:]) if self_conditioned else shape, shape, data.spec.num_classes)
    return denoisers["velocity"](network, FlowSchedule(), 1.0, self_conditioned)


def stream_of(data, history=None, batch_size=16, self_conditioned=False, **objective):
    codec = IdentityCodec.pixels() if data.spec.kind == "image" else IdentityCodec()
    made = objectives.build({"name": "mse", **objective})
    return DrawStream(data, codec, denoiser_of(data, self_conditioned), made, batch_size, 3, history=history)


PLAIN = {}
KINDS = {
    "plain": PLAIN,
    "offset": {"noise": {"offset": 0.3}},
    "perturbation": {"noise": {"perturbation": 0.1}},
    "pairing": {"noise": {"pairing": 24}},
    "all": {"noise": {"offset": 0.3, "perturbation": 0.1, "pairing": 24}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_sees_the_same_alone_in_any_part_and_after_anything(kind):
    stream = stream_of(pictures(), **KINDS[kind])
    whole = stream.draws(np.arange(160))
    for part in (np.arange(37, 90), np.array([5]), np.array([150, 3, 77])):
        some = stream_of(pictures(), **KINDS[kind]).draws(part)
        for name, mine in whole._asdict().items():
            if isinstance(mine, torch.Tensor):
                assert torch.equal(mine[torch.from_numpy(part)], getattr(some, name)), name


def test_the_plain_objective_draws_nothing_more():
    draws = stream_of(points()).draws(np.arange(8))
    assert draws.noisier is draws.recalls is draws.stratum is draws.importance is None


def test_offset_noise_has_the_covariance_that_it_says():
    eps = stream_of(pictures(), noise={"offset": 0.5}).draws(np.arange(4000)).eps
    plain = stream_of(pictures()).draws(np.arange(4000)).eps
    added = (eps - plain).flatten(2)  # (B, 3, 16)
    torch.testing.assert_close(added, added[:, :, :1].expand_as(added), rtol=0, atol=2e-6)
    assert float(added[:, :, 0].std()) == pytest.approx(0.5, rel=0.03)
    covariance = torch.cov(eps.flatten(1).double().T)
    same_channel = torch.block_diag(*[torch.ones(16, 16)] * 3).double()
    expected = torch.eye(48) + 0.25 * same_channel
    assert float((covariance - expected).abs().max()) < 5 * 1.25 / 4000**0.5


def test_offset_noise_needs_channels():
    with pytest.raises(IncompatibleParts, match=r"objective\.noise\.offset=0"):
        stream_of(points(), noise={"offset": 0.1}).draws(np.arange(4))


def test_perturbation_reaches_the_input_and_not_the_target():
    stream, plain = stream_of(points(), noise={"perturbation": 0.2}), stream_of(points())
    a = stream.objective.prepare(stream.denoiser, stream.draws(np.arange(4000)))
    b = plain.objective.prepare(plain.denoiser, plain.draws(np.arange(4000)))
    assert torch.equal(a.target, b.target)
    assert torch.equal(a.draws.eps, b.draws.eps)
    sigma, alpha = b.draws.t, 1 - b.draws.t
    extra = (a.inputs - b.inputs) * ((sigma**2 + alpha**2).sqrt() / sigma)[
        :, None
    ]  # in units of the noise that is there
    assert float(extra.std()) == pytest.approx(0.2, rel=0.03)
    assert abs(float((extra * b.draws.eps).mean())) < 4 * 0.2 / 8000**0.5


def test_pairing_keeps_the_noise_of_every_group_and_brings_it_nearer():
    plain, paired = (
        stream_of(points()).draws(np.arange(200)),
        stream_of(points(), noise={"pairing": 40}).draws(np.arange(200)),
    )
    assert torch.equal(plain.x_0, paired.x_0)
    for group in torch.arange(200).split(40):
        a, b = plain.eps[group], paired.eps[group]
        assert sorted(a.tolist()) == sorted(b.tolist())
        assert float((paired.x_0[group] - b).square().sum()) < float((plain.x_0[group] - a).square().sum())
    assert not torch.equal(plain.eps, paired.eps)


def test_paired_flows_leave_less_to_guess():
    """What is left of the target when x_t is known, by its nearest neighbours: half as much where noise and data are paired."""

    def left(noise):
        stream = stream_of(points(4000), noise=noise)
        d = stream.draws(np.arange(4000))._replace(t=torch.full((4000,), 0.5, dtype=torch.float64))
        prepared = stream.objective.prepare(stream.denoiser, d)
        near = torch.cdist(prepared.inputs, prepared.inputs).topk(9, largest=False).indices[:, 1:]
        return float((prepared.target - prepared.target[near].mean(1)).square().mean())

    assert left({"pairing": 250}) < 0.5 * left({})


def test_no_floor_is_claimed_where_the_noise_is_another_one():
    data = points(100)
    for noise, known in ({}, True), ({"perturbation": 0.1}, True), ({"pairing": 16}, False):
        objective = objectives.build({"name": "mse", "noise": noise})
        floor = bayes_floor(data, IdentityCodec(), denoiser_of(data), objective, 64)
        assert (floor is not None) == known


def test_no_floor_is_claimed_of_a_bound_whose_floor_is_not_known():
    data, denoiser = points(100), LearnedVarianceDenoiser(VDenoiser(None, LinearSchedule()))
    for weight, known in (0.001, False), (0.0, True):
        objective = objectives.build({"name": "hybrid", "vlb_weight": weight})
        floor = bayes_floor(data, IdentityCodec(), denoiser, objective, 64)
        assert (floor is not None) == known


def test_validation_has_the_noise_of_the_objective_and_no_perturbation():
    data = points(100)
    make = lambda noise: (
        Validation(
            data, IdentityCodec(), denoiser_of(data), objectives.build({"name": "mse", "noise": noise}), 64
        ).draws
    )
    plain, paired, perturbed = make({}), make({"pairing": 16}), make({"perturbation": 0.5})
    assert perturbed.noisier is None
    assert torch.equal(perturbed.eps, plain.eps)
    for group in torch.arange(64).split(16):
        assert sorted(plain.eps[group].tolist()) == sorted(paired.eps[group].tolist())
    assert float((paired.x_0 - paired.eps).square().sum()) < float((plain.x_0 - plain.eps).square().sum())


# Times that follow the losses


def adaptive(refresh=6):
    stream = stream_of(points(), times={"name": "adaptive", "strata": 4, "memory": 3, "refresh": refresh})
    stream.history = stream.objective.times.history(stream.denoiser.schedule)
    return stream_of(points(), stream.history, times={"name": "adaptive", "strata": 4, "memory": 3, "refresh": refresh})


def losses_of(prepared):
    return prepared.draws.t**2 + 0.01


def test_blocks_of_steps_end_where_the_density_changes():
    assert 6 % adaptive(6).block_steps == 0
    assert 7 % adaptive(7).block_steps == 0
    assert stream_of(points()).block_steps == 256


def walk(stream, steps):
    seen = []
    for step in steps:
        prepared = stream.step(step, CPU)
        stream.history.observe(prepared.draws.stratum, losses_of(prepared))
        stream.history.update(step + 1)
        seen.append(prepared)
    return seen


@pytest.mark.parametrize("stop", [5, 6, 9, 17])
def test_a_run_that_was_interrupted_draws_the_same_times(stop):
    whole, begun, resumed = adaptive(), adaptive(), adaptive()
    expected = walk(whole, range(30))
    walk(begun, range(stop))
    resumed.history.restore({name: tensor.clone() for name, tensor in begun.history.tensors().items()})
    for mine, other in zip(walk(resumed, range(stop, 30)), expected[stop:], strict=True):
        assert torch.equal(mine.inputs, other.inputs)
        assert torch.equal(mine.draws.importance, other.draws.importance)
    assert not torch.equal(expected[-1].draws.importance, torch.ones(16, dtype=torch.float64))


def test_large_losses_are_drawn_more_often_and_count_less():
    stream = adaptive()
    walk(stream, range(12))
    draws = stream.draws(np.arange(4000))
    assert float((draws.stratum == 3).double().mean()) == pytest.approx(float(stream.history.shares[3]), abs=0.03)
    assert float(stream.history.shares[3]) > 0.5
    weighted = (draws.importance * (draws.t**2 + 0.01)).mean()
    assert float(weighted) == pytest.approx(1 / 3 + 0.01, rel=0.03)


# Who recalls


def test_half_of_every_even_batch_recalls_and_who_does_is_left_to_chance():
    who = who_recalls(3, np.arange(10_000))
    assert torch.equal(who.reshape(-1, 2).sum(1), torch.ones(5000, dtype=torch.int64))
    assert float(who[::2].double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 5000**0.5)
    assert not torch.equal(who, who_recalls(4, np.arange(10_000)))
    draws = stream_of(points(), self_conditioned=True).draws(np.arange(100, 130))
    assert torch.equal(draws.recalls, who[100:130])


def test_the_digits_are_drawn_with_all_of_it():
    data = datasets.build("digits").load()
    stream = stream_of(data, self_conditioned=True, **KINDS["all"])
    prepared = stream.step(0, CPU)
    losses = stream.objective.losses(stream.denoiser, prepared)
    assert losses.shape == (16,)
    assert bool(losses.isfinite().all())
