"""A loss that is no number: what is said, and how a run goes on."""

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
from unnoise.training.loop import Diverged, Stepped

SMALL = (
    "training.steps=40", "training.checkpoint_every=10", "training.validate_every=40", "training.sample_every=0",
    "training.batch_size=32", "training.validation_size=16", "training.log_every=10", "network=seed_mlp",
    "network.hidden=16", "machine.precision=fp32",
)  # fmt: skip


@pytest.fixture
def spoilt(monkeypatch):
    """Makes the network of a run say NaN for what is noisiest, once its rate is as given and it has come so far."""

    def spoil(run, at, rates=(1.0,)):
        network, forward = run.state.network, run.state.network.forward

        def spoiled(x, noise_level, cond=None):
            answer = forward(x, noise_level, cond)
            if network.training and run.state.step == at and float(run.state.rate) in rates:
                answer = torch.where((noise_level > 500)[:, None], torch.nan, answer)
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


def test_data_that_is_no_number_stops_a_run_before_it_begins():
    from unnoise.data.base import Dataset
    from unnoise.errors import DataError

    data = datasets.build("spiral").load()
    x = data.x.clone()
    x[3, 1] = torch.nan
    with pytest.raises(DataError):
        Dataset(x, None, data.spec).check()
