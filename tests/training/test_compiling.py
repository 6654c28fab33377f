"""When a run compiles its network: a trial decides, which changes nothing, and a resumed run does as the run did before."""

import json
from functools import partial

import pytest
import torch

from unnoise.objectives.mse import preconditioned
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.compiling import KEPT_IN, CompileChoice, CompileTrial, Compiling

STEPS = 6
SHORT = {
    "network": {"name": "dit", "width": 16, "depth": 1, "heads": 2, "patch": 4}, "machine__precision": "fp32",
    "training__steps": STEPS, "training__batch_size": 10, "training__warmup": 0, "training__validation_size": 16,
    "training__sample_every": 0, "training__checkpoint_every": 3,
    "objective": {"name": "mse", "noise": {"offset": 0.05}},  # of which no floor is worked out, which would take seconds
}  # fmt: skip


class Setting:
    """A processor on which compiling is tried, by a compiler that torch has for tests, and a clock of our own."""

    def __init__(self, monkeypatch, compiled=0.5, worth=0.0):
        self.calls, self.now, self.compiled, self.networks = 0, 0.0, compiled, []
        monkeypatch.setattr("unnoise.training.compiling.TRIED_ON", "cpu")
        monkeypatch.setattr("unnoise.training.compiling.WORTH", worth)
        choice = partial(CompileChoice, compiler=self.compile, clock=self.clock)
        monkeypatch.setattr("unnoise.recipes.run.CompileChoice", choice)

    def compile(self, network):
        self.calls += 1
        self.networks.append(network)
        network.compile(backend="eager")

    def clock(self):
        compiled = bool(self.networks) and self.networks[-1]._compiled_call_impl is not None
        self.now += self.compiled if compiled else 1.0
        return self.now


def ran(folder, stop_at=STEPS, **more):
    """A run, its events, and whether its network ended compiled."""
    run = Run(load_recipe("digits", **SHORT, **more), folder)
    events = list(run.events(lambda: run.state.step >= stop_at))
    network = preconditioned(run.trainee.denoiser).network
    return run, events, network._compiled_call_impl is not None


def trials(events):
    return [event for event in events if isinstance(event, (Compiling, CompileTrial))]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights of a run that compiles nothing."""
    run, _, compiled = ran(tmp_path_factory.mktemp("plain") / "run", machine__compile=False)
    assert not compiled
    return run.state.masters.vector.clone()


def test_on_a_processor_nothing_is_compiled(tmp_path, plain, monkeypatch):
    monkeypatch.setattr("unnoise.training.compiling.WORTH", 0.0)
    run, events, compiled = ran(tmp_path / "run")
    assert not compiled
    assert trials(events) == []
    assert not (tmp_path / "run" / KEPT_IN).exists()
    assert torch.equal(run.state.masters.vector, plain)


def test_what_is_faster_is_kept_and_a_resumed_run_asks_no_clock(tmp_path, monkeypatch):
    setting = Setting(monkeypatch, compiled=0.5)
    run, events, compiled = ran(tmp_path / "run", stop_at=3)
    assert compiled
    begun, trial = trials(events)
    assert isinstance(begun, Compiling)
    assert (trial.plain, trial.compiled, trial.why_not) == (1.0, 0.5, "")
    assert str(trial).startswith("the network is used compiled: 0.5 s a step compiled, 1 s as it is written")
    assert json.loads((tmp_path / "run" / KEPT_IN).read_text())["compiled"] == 0.5

    setting.compiled = 2.0  # now the clock would say otherwise
    run, events, compiled = ran(tmp_path / "run")
    assert compiled
    assert run.state.step == STEPS
    assert trials(events) == []
    whole, _, _ = ran(tmp_path / "whole", machine__compile="auto")
    assert setting.calls == 3
    torch.testing.assert_close(run.state.masters.vector, whole.state.masters.vector, rtol=1e-5, atol=1e-6)


def test_a_trial_that_is_not_kept_leaves_no_trace_in_the_weights(tmp_path, monkeypatch, plain):
    setting = Setting(monkeypatch, compiled=0.99)
    run, events, compiled = ran(tmp_path / "run", stop_at=3)
    assert not compiled
    assert "the network is used as it is written" in str(trials(events)[1])
    run, events, compiled = ran(tmp_path / "run")
    assert not compiled
    assert trials(events) == []
    assert setting.calls == 1
    assert torch.equal(run.state.masters.vector, plain)


def test_what_cannot_be_compiled_is_used_as_it_is_written(tmp_path, monkeypatch, plain):
    setting = Setting(monkeypatch)

    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(setting, "compile", lambda network: network.compile(backend=broken))
    choice = partial(CompileChoice, compiler=setting.compile, clock=setting.clock)
    monkeypatch.setattr("unnoise.recipes.run.CompileChoice", choice)
    run, events, compiled = ran(tmp_path / "run")
    assert not compiled
    trial = trials(events)[1]
    assert trial.compiled is None
    assert "could not be compiled and is used as it is written: " in str(trial)
    assert "no C++ compiler" in trial.why_not
    assert "\n" not in str(trial)
    assert torch.equal(run.state.masters.vector, plain)


def test_a_run_too_short_to_pay_for_it_tries_nothing(tmp_path, monkeypatch, plain):
    setting = Setting(monkeypatch, worth=STEPS * 1.0)
    run, events, _ = ran(tmp_path / "run")
    assert trials(events) == []
    assert setting.calls == 0
    assert torch.equal(run.state.masters.vector, plain)
    Setting(monkeypatch, worth=STEPS * 1.0 - 0.5)
    assert len(trials(ran(tmp_path / "other")[1])) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"machine__compile": False},
        {"machine__activation_checkpointing": True},
        {"machine__cuda_graphs": True},
        {"network": {"name": "seed_mlp"}, "data": "spiral", "codec": None},
    ],
)
def test_what_is_asked_for_otherwise_or_has_its_own_derivative_is_left_alone(tmp_path, monkeypatch, more):
    setting = Setting(monkeypatch)
    values = {**SHORT, **more}
    if "data" in more:
        values = {key: value for key, value in values.items() if key not in ("data", "codec", "objective")}
    run = Run(load_recipe("spiral" if "data" in more else "digits", **values), tmp_path / "run")
    assert trials(list(run.events())) == []
    assert setting.calls == 0


def test_another_device_tries_anew(tmp_path, monkeypatch):
    setting = Setting(monkeypatch)
    ran(tmp_path / "run", stop_at=3)
    file = tmp_path / "run" / KEPT_IN
    file.write_text(file.read_text().replace('"device": "', '"device": "another '))
    _, events, _ = ran(tmp_path / "run")
    assert len(trials(events)) == 2
    assert setting.calls == 2
