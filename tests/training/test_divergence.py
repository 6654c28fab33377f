"""A loss or a gradient that is no number: what is said, and how a run goes on."""

import json
import re

import pytest
import torch

from unnoise.data.base import datasets
from unnoise.errors import TrainingDiverged
from unnoise.nn.seed_mlp import SeedMLP
from unnoise.recipes.judging.while_training import Watcher
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import newest_whole
from unnoise.training.lookout import MOST_UNSEEN, most_unseen
from unnoise.training.loop import CheckpointDue, Diverged, SamplesDue, Stepped, Validated
from unnoise.training.settings import TrainingSettings

SMALL = (
    "training.steps=40", "training.checkpoint_every=10", "training.validate_every=40", "training.sample_every=0",
    "training.batch_size=32", "training.validation_size=16", "training.log_every=10", "network=seed_mlp",
    "network.hidden=16", "machine.precision=fp32",
)  # fmt: skip


def no_number(answer, noise_level):
    return torch.where((noise_level > 500)[:, None], torch.nan, answer)


def noisiest_alone(answer, noise_level):
    return torch.where((noise_level == noise_level.max())[:, None], torch.nan, answer)


def no_gradient(answer, noise_level):
    """The same numbers, with a gradient that is none: that of the root at 0."""
    return answer + (0 * answer).square().sum().sqrt()


@pytest.fixture
def seldom(monkeypatch):
    """Looks at a run on the processor as at one on a GPU, where every look waits for the device."""
    there = torch.device("cuda")
    monkeypatch.setattr("unnoise.training.lookout.most_unseen", lambda _, settings: most_unseen(there, settings))


@pytest.fixture
def spoilt(monkeypatch):
    """Makes the network of a run say NaN for what is noisiest, or else, once its rate is as given and it has come so far."""

    def spoil(run, at, rates=(1.0,), how=no_number):
        network, forward = run.state.network, run.state.network.forward

        def spoiled(x, noise_level, cond=None):
            answer = forward(x, noise_level, cond)
            if network.training and run.state.step == at and float(run.state.rate) in rates:
                answer = how(answer, noise_level)
            return answer

        monkeypatch.setattr(network, "forward", spoiled)
        monkeypatch.setattr(SeedMLP, "by_hand", lambda *_: None)

    return spoil


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_goes_back_to_its_checkpoint_once_and_on_with_half_the_rate(tmp_path, spoilt):
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    spoilt(run, at=25)
    told, rates = [], {}
    for event in run.events():
        if isinstance(event, Diverged):
            told.append((event, run.state.step))
        elif isinstance(event, Stepped):
            rates.setdefault(event.step, []).append(event.learning_rate)
    [(event, back)] = told
    assert (event.step, back) == (26, 20)
    told_of = (
        r"the loss is nan: (\d+) of the batch's 32 samples have none \(number (\d+) of the training data among them\)"
    )
    found = re.fullmatch(told_of + r", at t = (\S+) to (\S+)", event.what)
    assert 0 < int(found[1]) < 32
    assert 0.5 <= float(found[3]) <= float(found[4]) <= 1
    stream = run.trainee.examples(run.state)
    batch, numbers = stream.step(25, torch.device("cpu")), stream.numbers(25).tolist()
    worst = [number for number, noise_level in zip(numbers, batch.noise_level, strict=True) if noise_level > 500]
    assert (int(found[1]), int(found[2])) == (len(worst), worst[0])
    drawn = run.train_data.take(torch.tensor(numbers[:3]))
    torch.testing.assert_close(run.trainee.codec.encode(drawn.x), batch.draws.x_0[:3])
    assert rates[21][1] == pytest.approx(rates[21][0] / 2)
    assert len(rates[40]) == 1
    assert float(newest_whole(tmp_path / "run" / "checkpoints")[0].tensors["rate"]) == 0.5
    written = lines(tmp_path / "run")
    assert [line["step"] for line in written if "went_back" in line] == [20]
    assert [line["step"] for line in written if "lr" in line] == [10, 20, 30, 40]


def test_before_the_first_checkpoint_it_begins_anew(tmp_path, spoilt):
    straight = Run(load_recipe("spiral", [*SMALL, "training.steps=1"]), tmp_path / "straight")
    begun = straight.state.masters.vector.clone()
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    spoilt(run, at=5)
    for event in run.events():
        if isinstance(event, Diverged):
            assert run.state.step == 0
            assert torch.equal(run.state.masters.vector, begun)
            assert torch.equal(run.state.average.vector, begun)
            assert not run.state.memory.moments["first_moment"].vector.any()
            assert run.watcher.state == Watcher.NOTHING
    assert run.finished
    assert [line["step"] for line in lines(tmp_path / "run") if "validation_loss" in line] == [0, 40]


def test_a_second_time_it_stops_and_says_where(tmp_path, spoilt):
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    spoilt(run, at=25, rates=(1.0, 0.5))
    with pytest.raises(
        TrainingDiverged, match=r"of the batch's 32 samples have none \(.*\), at t = .* at step 26: lower training\.lr"
    ):
        list(run.events())
    assert newest_whole(tmp_path / "run" / "checkpoints")[0].step == 20


def test_a_run_that_went_back_and_is_resumed_ends_with_the_same_bytes(tmp_path, spoilt):
    ends = []
    for name, kill in (("straight", None), ("broken", 27)):
        while True:
            run = Run(load_recipe("spiral", SMALL), tmp_path / name)
            spoilt(run, at=25)
            seen, kill = list(_until(run, kill)), None
            if run.finished:
                break
            assert seen
        ends.append(run.state.masters.vector.clone())
    assert torch.equal(*ends)


def _until(run, kill):
    """The events of a run, which is left where it stands after so many steps."""
    for event in run.events():
        yield event
        if isinstance(event, Stepped) and event.step == kill:
            return


def batch_of(run, step):
    """The numbers, times and noise levels of the samples that a step learns from, the first being step 1."""
    stream = run.trainee.examples(run.state)
    batch = stream.step(step - 1, torch.device("cpu"))
    return stream.numbers(step - 1), batch.draws.t, batch.noise_level


def test_a_run_on_a_gpu_is_looked_at_where_it_is_written_down():
    settings = TrainingSettings(log_every=10)
    assert most_unseen(torch.device("cpu"), settings) == 1
    assert most_unseen(torch.device("cuda"), settings) == most_unseen(torch.device("mps"), settings) == 10
    assert most_unseen(torch.device("cuda"), TrainingSettings(log_every=100_000)) == MOST_UNSEEN


def test_where_steps_are_not_looked_at_one_by_one_the_first_that_broke_is_named(tmp_path, spoilt, seldom):
    run = Run(load_recipe("spiral", [*SMALL, "training.checkpoint_every=20"]), tmp_path / "run")
    spoilt(run, at=24, how=noisiest_alone)
    made, told = [], []
    for event in run.events():
        if isinstance(event, Diverged):
            told.append((event, run.state.step))
        elif isinstance(event, Stepped) and not told:
            made.append(event.step)
    [(event, back)] = told
    assert (event.step, event.seen, back, made[-1]) == (25, 30, 20, 29)
    numbers, t, noise_level = batch_of(run, 25)
    worst = int(noise_level.argmax())
    assert event.what == (
        f"the loss is nan: 1 of the batch's 32 samples has none (number {numbers[worst]} of the training data), "
        f"at t = {float(t[worst]):.3f}"
    )
    [line] = [line for line in lines(tmp_path / "run") if "went_back" in line]
    assert f"{event.what} at step 25: went back to step 20" in line["went_back"]
    assert run.finished


@pytest.mark.parametrize("looks", ["at every step", "at those written down"])
def test_a_gradient_that_is_no_number_is_told_of_its_own_step(tmp_path, spoilt, looks, request):
    if looks != "at every step":
        request.getfixturevalue("seldom")
    plain = Run(load_recipe("spiral", SMALL), tmp_path / "plain")
    spoilt(plain, at=-1)
    losses = {event.step: float(event.loss) for event in plain.events() if isinstance(event, Stepped)}
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    spoilt(run, at=24, how=no_gradient)
    [(event, back)] = [(event, run.state.step) for event in run.events() if isinstance(event, Diverged)]
    assert (event.step, event.seen, back) == (25, 25 if looks == "at every step" else 30, 20)
    told = re.fullmatch(
        r"the loss is (\S+), but the norm of its gradient is nan: the largest loss of the batch's 32 samples is (\S+) "
        r"\(number (\d+) of the training data\), at t = (\S+)",
        event.what,
    )
    assert float(told[1]) == pytest.approx(losses[25], rel=1e-3)
    assert float(told[2]) > losses[25]
    numbers, t, _ = batch_of(run, 25)
    assert f"{float(t[numbers.tolist().index(int(told[3]))]):.3f}" == told[4]


@pytest.mark.parametrize(
    "due", ["training.validate_every=27", "training.sample_every=27", "training.checkpoint_every=27"]
)
def test_nothing_is_made_of_weights_that_were_not_looked_at(tmp_path, spoilt, seldom, due):
    run, events = Run(load_recipe("spiral", [*SMALL, due]), tmp_path / "run"), []
    spoilt(run, at=24, rates=(1.0, 0.5))
    with pytest.raises(TrainingDiverged, match="at step 25: lower"):
        events += run.events()
    assert [event.seen for event in events if isinstance(event, Diverged)] == [27, 27]
    assert not [
        event for event in events if isinstance(event, Validated | SamplesDue | CheckpointDue) and event.step > 24
    ]


def test_a_stop_between_two_looks_saves_nothing_that_is_broken(tmp_path, spoilt, seldom):
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    spoilt(run, at=24)
    seen = [
        (event.step, event.seen) for event in run.events(lambda: run.state.step == 27) if isinstance(event, Diverged)
    ]
    assert seen == [(25, 27)]
    found = newest_whole(tmp_path / "run" / "checkpoints")[0]
    assert (found.step, float(found.tensors["rate"])) == (27, 0.5)
    assert torch.isfinite(run.state.masters.vector).all()


def test_data_that_is_no_number_stops_a_run_before_it_begins():
    from unnoise.data.base import Dataset
    from unnoise.errors import DataError

    data = datasets.build("spiral").load()
    x = data.x.clone()
    x[3, 1] = torch.nan
    with pytest.raises(DataError):
        Dataset(x, None, data.spec).check()
