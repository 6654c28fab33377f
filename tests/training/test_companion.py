"""Whole runs of objectives that keep something beside the network: resumed, in parts, and on several processes."""

import pytest
import torch

from unnoise.errors import IncompatibleParts, RunFolderError
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import newest_whole
from unnoise.training.loop import Validated, train
from unnoise.training.state import TrainState

RECIPE = (
    "spiral", "training.steps=40", "training.batch_size=30", "training.checkpoint_every=40", "training.validate_every=40",
    "training.sample_every=0", "training.validation_size=64", "network.width=16", "network.depth=1",
    "machine.precision=fp32",
)  # fmt: skip
ADAPTIVE = '{"name": "adaptive", "strata": 4, "memory": 3, "refresh": 5}'
EVERYTHING = (
    f"objective.times={ADAPTIVE}", "objective.uncertainty=true", "objective.noise.pairing=24",
    "objective.noise.perturbation=0.1", "denoiser.self_conditioning=true",
)  # fmt: skip


def run_of(folder, *options):
    return Run(load_recipe(RECIPE[0], [*RECIPE[1:], *EVERYTHING, *options]), folder)


def finished(run, stop=lambda: False):
    for _ in run.events(stop):
        pass
    return newest_whole(run.folder / "checkpoints")[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return finished(run_of(tmp_path_factory.mktemp("alone") / "run"))


@pytest.mark.parametrize("steps", [[3], [5, 23], [17]])
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(alone, tmp_path, steps):
    for at in steps:
        run = run_of(tmp_path / "run")
        finished(run, lambda run=run, at=at: run.state.step >= at)
        assert run.state.step == at
    resumed = finished(run_of(tmp_path / "run"))
    assert resumed.path.read_bytes() == alone.path.read_bytes()
    assert float(resumed.part("companion/times/shares")[""].std()) > 0
    assert float(resumed.part("companion/uncertainty/0")[""].std()) > 0


def furthest(a, b, prefix):
    x, y = a.part(prefix), b.part(prefix)
    assert x.keys() == y.keys()
    return max(float((x[name].double() - y[name].double()).abs().max()) for name in x)


def check_alike(alone, other):
    for prefix, most in (
        ("weights/", 2e-5),
        ("ema/", 2e-6),
        ("companion/uncertainty", 2e-5),
        ("companion/times", 2e-4),
    ):
        assert furthest(alone, other, prefix) < most, prefix


def test_micro_batches_see_the_same_pairs_and_times(alone, tmp_path):
    check_alike(alone, finished(run_of(tmp_path / "run", "machine.micro_batch=8")))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_have_one_history_and_one_uncertainty(interpreters, alone, tmp_path, parallel):
    options = [*RECIPE, *EVERYTHING, f"machine.parallel={parallel}", "--out", tmp_path / "run"]
    interpreters.together(2, "import runpy; runpy.run_module('unnoise', run_name='__main__')", "train", *options)
    check_alike(alone, newest_whole(tmp_path / "run" / "checkpoints")[0])


def test_what_is_validated_is_comparable_with_the_floor(tmp_path):
    options = ["objective.uncertainty=true", f"objective.times={ADAPTIVE}", "training.validation_size=2048"]
    run = Run(load_recipe(RECIPE[0], [*RECIPE[1:], *options]), tmp_path / "run")
    validated = [event for event in run.events() if isinstance(event, Validated)]
    assert validated[-1].floor is not None
    assert validated[0].loss.loss > validated[-1].loss.loss > validated[-1].floor.loss


def test_a_state_that_lacks_what_the_objective_keeps_is_refused(tmp_path):
    run = run_of(tmp_path / "run")
    bare = TrainState(run.state.network, run.state.settings)
    with pytest.raises(IncompatibleParts, match=r"companion=objective\.companion"):
        next(iter(train(run.trainee, bare)))
    with pytest.raises(RunFolderError, match="another objective"):
        bare.restore(run.state.tensors(), 0)


def test_going_back_to_the_beginning_empties_what_the_stream_of_examples_looks_at(tmp_path):
    run = run_of(tmp_path / "run", "training.steps=20")
    finished(run)
    state, history = run.state, run.state.companion.history
    assert int(history.seen.sum()) == 600
    fresh = run_of(tmp_path / "other")
    state.begin_again(fresh.state.network, fresh.trainee.objective.companion(fresh.trainee.denoiser.schedule))
    assert state.companion.history is history
    assert int(history.seen.sum()) == 0
    assert float(history.shares.std()) == 0
    for name, tensor in fresh.state.tensors().items():
        assert torch.equal(tensor, state.tensors()[name]), name


def test_the_plain_objective_keeps_nothing(tmp_path):
    run = Run(load_recipe(RECIPE[0], RECIPE[1:]), tmp_path / "run")
    assert not [name for name in run.state.tensors() if name.startswith("companion")]
    assert torch.equal(torch.as_tensor(run.state.step), torch.tensor(0))
