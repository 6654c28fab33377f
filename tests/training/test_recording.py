"""Recorded work gives what plain work gives, whatever the size of the batch; what cannot be recorded is not."""

import pytest
import torch

from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.gradient import Gradient
from unnoise.training.loop import train
from unnoise.training.memory import samples_held
from unnoise.training.optimizers.muon import MuonOptimizer
from unnoise.training.recorded_gradient import RecordedGradient, recordable
from unnoise.training.recording import Recording

OPTIONS = [
    "training.steps=12", "training.batch_size=16", "training.sample_every=0", "training.validation_size=64",
    "training.log_every=4", "network.width=16", "network.blocks=1", "machine.precision=fp32",
]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_recorded_run_is_the_plain_one(tmp_path, optimizer):
    ends = []
    for records in (False, True):
        run = Run(load_recipe("digits", [*OPTIONS, f"training.optimizer={optimizer}"]), tmp_path / str(records))
        run.state.memory.records = records
        gradient = run.trainee.gradient(run.state)
        assert isinstance(gradient, RecordedGradient if records else Gradient)
        for _ in train(run.trainee, run.state):
            pass
        assert run.state.step == 12
        ends.append(run.state.masters.vector)
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_every_size_of_batch_has_its_own_recording(tmp_path):
    run = Run(load_recipe("digits", OPTIONS), tmp_path / "run")
    run.state.memory.records = True
    gradient = run.trainee.gradient(run.state)
    batch = run.trainee.examples(run.state).step(0, torch.device("cpu"))
    whole = gradient.add(batch, 1 / 16)
    halves = [gradient.add(batch.slice(i, i + 8), 1 / 16) for i in (0, 8)]
    torch.testing.assert_close(torch.cat(halves), whole)
    assert len(gradient._known) == 2
    assert run.trainee.recordable


@pytest.mark.parametrize(("size", "micro_batch"), [(16, 0), (15, 0), (16, 6), (16, 1)])
def test_memory_is_counted_for_the_recordings_that_there_are(tmp_path, size, micro_batch):
    options = [f"training.batch_size={size}", f"machine.micro_batch={micro_batch}", "training.steps=4"]
    run = Run(load_recipe("digits", [*OPTIONS, *options]), tmp_path / "run")
    run.state.memory.records = True
    gradient = run.trainee.gradient(run.state)
    run.trainee.gradient = lambda state: gradient
    for _ in train(run.trainee, run.state):
        pass
    sizes = [len(places[0]) for places, _ in gradient._known.values()]
    assert sum(sizes) == samples_held(size, micro_batch, recorded=True)


@pytest.mark.parametrize(
    "option",
    [
        "network.dropout=0.1",
        "denoiser.self_conditioning=true",
        "objective.uncertainty=true",
        "objective.times=adaptive",
    ],
)
def test_what_differs_from_step_to_step_is_not_recorded(tmp_path, option):
    run = Run(load_recipe("digits", [*OPTIONS, option]), tmp_path / "run")
    run.state.memory.records = True
    gradient = run.trainee.gradient(run.state)
    assert isinstance(gradient, Gradient)
    assert not recordable(gradient)
    assert not run.trainee.recordable


def test_a_recording_is_just_done_on_a_processor():
    calls = []
    recording = Recording(lambda: calls.append(1), torch.device("cpu"))
    for _ in range(5):
        recording()
    assert len(calls) == 5


def test_muon_matches_names_once(tmp_path, monkeypatch):
    run = Run(load_recipe("digits", [*OPTIONS, "training.optimizer=muon"]), tmp_path / "run")
    asked = []
    takes = MuonOptimizer._takes
    monkeypatch.setattr(MuonOptimizer, "_takes", lambda self, *a: asked.append(a[0]) or takes(self, *a))
    for _ in range(3):
        run.state.gradients.vector.normal_()
        run.state.update()
    assert len(asked) == len(run.state.names)
