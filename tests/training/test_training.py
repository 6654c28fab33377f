"""The parts of training, one by one."""

import math

import numpy as np
import pytest
import torch

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import datasets
from unnoise.denoisers.base import denoisers
from unnoise.denoisers.oracle import DatasetOracle
from unnoise.errors import TrainingDiverged
from unnoise.nn.base import networks
from unnoise.objectives.mse import MSEObjective
from unnoise.process.linear import LinearSchedule
from unnoise.training.denoising import DenoiserTrainee
from unnoise.training.draws import DrawStream
from unnoise.training.loop import CheckpointDue, Finished, Stepped, Validated, train
from unnoise.training.settings import TrainingSettings
from unnoise.training.state import TrainState
from unnoise.training.validation import STRATA, Validation, bayes_floor


def seed_trainee(name="spiral", **settings):
    """The seeds' own way: their net, noise prediction, linear schedule."""
    data = datasets.build(name).load()
    torch.manual_seed(0)
    network = networks["seed_mlp"]((2,), None, data.spec.num_classes)
    denoiser = denoisers["noise"](network, LinearSchedule())
    trainee = DenoiserTrainee(denoiser, MSEObjective(), IdentityCodec(), data, data.take(torch.arange(0)), seed=0)
    chosen = {
        "batch_size": 64,
        "lr": 1e-4,
        "warmup": 0,
        "decay": "constant",
        "clip": 0.0,
        "betas": (0.9, 0.999),
        **settings,
    }
    return trainee, TrainState(network, TrainingSettings(**chosen))


def test_the_spiral_learned_the_seeds_own_way_reaches_its_loss_and_stays_above_the_floor():
    trainee, state = seed_trainee(steps=2000, validate_every=2000)
    losses, validated = [], []
    for event in train(trainee, state):
        if isinstance(event, Stepped):
            losses.append(2 * float(event.loss))  # the seeds sum over the two coordinates
        elif isinstance(event, Validated):
            validated.append(event)
    smoothed = np.convolve(losses, np.ones(400) / 400, mode="valid")
    floor = 2 * validated[-1].floor.loss
    assert floor == pytest.approx(0.408, abs=0.015)
    assert smoothed[-1] <= 0.50
    assert smoothed.min() > floor
    assert losses[0] == pytest.approx(2.0, abs=0.8)
    assert 2 * validated[0].loss.loss == pytest.approx(2.0, abs=0.1)


def test_the_floor_of_each_time_is_the_known_one():
    trainee, _ = seed_trainee(steps=1)
    floor = bayes_floor(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 1024)
    t = np.array(floor.t) * 1000
    by_time = 2 * np.array(floor.by_time)
    assert np.interp(500, t, by_time) == pytest.approx(0.105, abs=0.03)
    assert np.interp(300, t, by_time) == pytest.approx(0.62, abs=0.08)
    assert (by_time > 0).all()


def test_the_averaged_weights_are_neither_the_first_nor_the_last_ones():
    trainee, state = seed_trainee(steps=30, ema=0.9)
    first = [p.detach().clone() for p in state.parameters]
    averaged = [p.clone() for p in first]
    for event in train(trainee, state):
        if isinstance(event, Stepped):
            memory = min(0.9, event.step / (9 + event.step))
            averaged = [memory * a + (1 - memory) * p.detach() for a, p in zip(averaged, state.parameters, strict=True)]
    for ema, mine, begin, end in zip(state.average.views, averaged, first, state.parameters, strict=True):
        torch.testing.assert_close(ema, mine, rtol=1e-5, atol=1e-7)
        assert not torch.equal(ema, begin)
        assert not torch.equal(ema, end)


def test_one_update_is_that_of_adamw_with_clipping():
    trainee, state = seed_trainee(steps=1, clip=0.01, lr=1e-3)
    copy, _ = seed_trainee(steps=1)
    stream = DrawStream(trainee.train, trainee.codec, copy.denoiser, copy.objective, 64, 0)
    loss = copy.objective.losses(copy.denoiser, stream.step(0, torch.device("cpu"))).mean()
    gradients = torch.autograd.grad(loss, list(copy.denoiser.parameters()))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    before = [p.detach().clone() for p in state.parameters]
    for _ in train(trainee, state):
        pass
    for p, b, g in zip(state.parameters, before, gradients, strict=True):
        clipped = g * min(1.0, 0.01 / (float(norm) + 1e-6))
        expected = b - 1e-3 * clipped / (clipped.abs() + 1e-8)  # Adam's first step, with both moments corrected
        torch.testing.assert_close(p.detach(), expected, rtol=1e-4, atol=1e-7)


def test_the_learning_rate_rises_then_falls():
    settings = TrainingSettings(steps=1100, warmup=100, lr=2.0, decay="cosine")
    assert settings.learning_rate(0) == pytest.approx(0.02)
    assert settings.learning_rate(99) == pytest.approx(2.0)
    assert settings.learning_rate(600) == pytest.approx(1.0)
    assert settings.learning_rate(1099) == pytest.approx(1 + math.cos(math.pi * 0.999), rel=1e-6)
    linear = TrainingSettings(steps=1100, warmup=100, lr=2.0, decay="linear")
    assert linear.learning_rate(600) == pytest.approx(1.0)


def test_every_epoch_sees_every_sample_once_in_another_order():
    trainee, _ = seed_trainee()
    stream = DrawStream(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 64, 3)
    indices = stream.order.index_at(np.arange(900))
    epochs = indices.reshape(3, 300)
    for epoch in epochs:
        assert sorted(epoch) == list(range(300))
    assert not (epochs[0] == epochs[1]).all()
    np.testing.assert_array_equal(stream.order.index_at(np.arange(250, 650)), indices[250:650])


def test_a_step_sees_the_same_whatever_was_asked_before():
    trainee, _ = seed_trainee("moons")
    make = lambda: DrawStream(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 64, 3)
    one, other = make(), make()
    cpu = torch.device("cpu")
    walked = [one.step(k, cpu) for k in range(300)][299]
    jumped = other.step(299, cpu)
    assert torch.equal(walked.inputs, jumped.inputs)
    assert torch.equal(walked.noise_level, jumped.noise_level)
    assert torch.equal(walked.cond["label"], jumped.cond["label"])


def test_conditions_are_dropped_as_often_as_asked():
    trainee, _ = seed_trainee("moons")
    trainee.objective = MSEObjective(condition_dropout=0.25)
    stream = DrawStream(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 64, 3)
    labels = stream.draws(np.arange(20_000)).cond["label"]
    share = float((labels == 2).double().mean())
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 20_000))


def test_the_validation_loss_does_not_depend_on_the_batch_and_covers_all_times():
    trainee, _ = seed_trainee()
    validation = Validation(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 1000, 0)
    whole, parts = validation.loss(trainee.denoiser), validation.loss(trainee.denoiser, batch_size=37)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-6)
    assert len(whole.by_time) == STRATA
    np.testing.assert_allclose(whole.t, (np.arange(STRATA) + 0.5) / STRATA, atol=0.01)
    again = Validation(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 1000, 0)
    assert torch.equal(again.draws.eps, validation.draws.eps)


def test_no_denoiser_beats_the_exact_one_on_the_floor():
    trainee, _ = seed_trainee()
    validation = Validation(trainee.train, trainee.codec, trainee.denoiser, trainee.objective, 4096, 0)
    oracle = DatasetOracle(trainee.train.x, LinearSchedule())
    floor = validation.floor(oracle).loss
    shifted = validation.floor(DatasetOracle(trainee.train.x + 0.05, LinearSchedule())).loss
    fewer = validation.floor(DatasetOracle(trainee.train.x[::2], LinearSchedule())).loss
    assert floor < shifted
    assert floor < fewer


def test_a_run_may_be_stopped_after_any_step():
    trainee, state = seed_trainee(steps=50, validate_every=50)
    events = list(train(trainee, state, stop=lambda: state.step >= 7))
    assert events[-1] == Finished(7, stopped=True)


def test_a_loss_that_is_not_a_number_is_an_error():
    trainee, state = seed_trainee(steps=50, log_every=1)
    with torch.no_grad():
        state.parameters[0].fill_(torch.inf)
    with pytest.raises(TrainingDiverged, match=r"lower training\.lr"):
        list(train(trainee, state))


@pytest.mark.parametrize("settings", [{"steps": 3, "log_every": 50}, {"steps": 500, "log_every": 500}])
def test_weights_that_are_not_numbers_are_never_saved(settings):
    trainee, state = seed_trainee(**{"lr": 10.0, "validation_size": 16, "checkpoint_every": 2, **settings})
    with torch.no_grad():
        state.parameters[0].mul_(1e30)
    saved = []

    def run():
        saved.extend(state.finite() for event in train(trainee, state) if isinstance(event, CheckpointDue))

    with pytest.raises(TrainingDiverged, match=r"not finite|the loss is"):
        run()
    assert all(saved)


def test_training_leaves_torchs_own_generator_as_it_was():
    trainee, state = seed_trainee(steps=2, validation_size=16)
    before = torch.get_rng_state()
    for _ in train(trainee, state):
        pass
    assert torch.equal(torch.get_rng_state(), before)
