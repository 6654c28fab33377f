"""Memory that runs out while a run goes on: one line says how many samples were at once and what to try, and nothing is lost."""

import contextlib

import pytest
import torch

from unnoise.errors import IncompatibleParts, OutOfMemory
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.checkpoint import newest_whole
from unnoise.training.compiling import CompileChoice
from unnoise.training.memory import enough_for
from unnoise.training.recording import Recording

SMALL = (
    "training.steps=40", "training.checkpoint_every=10", "training.validate_every=40", "training.sample_every=0",
    "training.batch_size=32", "training.validation_size=16", "training.log_every=10", "network.width=16",
    "machine.precision=fp32",
)  # fmt: skip
ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Starved:
    """A gradient for which the memory does not suffice at one step, with so many samples at once or more."""

    def __init__(self, plain, at, samples, error):
        self.plain, self.state, self.at, self.samples, self.error = plain, plain.state, at, samples, error

    def add(self, examples, scale, first=0):
        if self.state.step == self.at and len(examples.inputs) >= self.samples:
            raise self.error
        return self.plain.add(examples, scale, first)


def starve(run, at, samples=2, error=ON_A_GPU):
    plain = run.trainee.gradient
    run.trainee.gradient = lambda state: Starved(plain(state), at, samples, error)


def finished(folder, *options):
    run = Run(load_recipe("spiral", [*SMALL, *options]), folder)
    for _ in run.events():
        pass
    return run.state.masters.vector


@pytest.mark.parametrize("error", [ON_A_GPU, MemoryError()], ids=["GPU", "processor"])
@pytest.mark.parametrize(("at", "at_once"), [(25, 32), (29, 16)])  # a step that is logged is made of halves
def test_a_run_says_what_to_try_and_goes_on_with_it_from_its_checkpoint(tmp_path, at, at_once, error):
    run = Run(load_recipe("spiral", SMALL), tmp_path / "run")
    starve(run, at, samples=at_once, error=error)
    with pytest.raises(OutOfMemory) as told:
        list(run.events())
    half = at_once // 2
    assert str(told.value) == (
        f"the memory does not suffice for {at_once} samples at once: add machine.micro_batch={half}, which gives the same "
        "result; the same command then goes on from the last checkpoint"
    )
    found, damaged = newest_whole(tmp_path / "run" / "checkpoints")
    assert (found.step, damaged) == (20, [])
    again = finished(tmp_path / "run", f"machine.micro_batch={half}")
    torch.testing.assert_close(again, finished(tmp_path / "whole"), rtol=1e-4, atol=1e-5)


def test_a_micro_batch_that_is_still_too_large_is_halved_again(tmp_path):
    run = Run(load_recipe("spiral", [*SMALL, "machine.micro_batch=6"]), tmp_path / "run")
    starve(run, at=3)
    with pytest.raises(OutOfMemory, match=r"for 6 samples at once: add machine\.micro_batch=3,"):
        list(run.events())


def test_validation_for_which_the_memory_does_not_suffice_says_so_too(tmp_path, monkeypatch):
    def short(*_):
        raise ON_A_GPU

    monkeypatch.setattr("unnoise.training.validation.Validation.loss", short)
    with pytest.raises(OutOfMemory, match=r"for 16 samples at once: add machine\.micro_batch=8,"):
        finished(tmp_path / "run")


def test_so_does_a_trial_of_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.training.compiling.TRIED_ON", "cpu")
    options = [*SMALL[:-2], "network.width=16", "network.blocks=1", "machine.micro_batch=12"]
    run = Run(load_recipe("digits", options), tmp_path / "run")
    gradient = run.trainee.gradient(run.state)
    starved = Starved(gradient, 0, 2, ON_A_GPU)
    monkeypatch.setattr(gradient, "add", starved.add)
    run.trainee.gradient = lambda state: gradient
    with pytest.raises(OutOfMemory, match=r"for 12 samples at once: add machine\.micro_batch=6,"):
        list(CompileChoice(run.folder, run.recipe.machine, run.device).settle(run.trainee, run.state))


def test_what_cannot_be_taken_in_parts_and_one_sample_alone_are_told_otherwise():
    thrifty = r"machine\.activation_checkpointing=true"
    with pytest.raises(OutOfMemory, match=rf"64 samples at once: add {thrifty}, or .* training\.batch_size=32$"):
        with enough_for(64, whole=True):
            raise ON_A_GPU
    for whole in (False, True):
        with pytest.raises(OutOfMemory, match=rf"for one sample at once: take {thrifty} or a smaller network$"):
            with enough_for(1, whole):
                raise ON_A_GPU


def test_the_processors_own_words_for_it_are_known_and_other_errors_stay_as_they_are():
    with pytest.raises(OutOfMemory, match="8 samples at once"), enough_for(8):
        torch.empty(2**58, dtype=torch.uint8)
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        with pytest.raises(type(error)) as raised, enough_for(8):
            raise error
        assert raised.value is error


def test_memory_that_runs_out_while_work_is_recorded_is_not_taken_for_work_that_cannot_be(monkeypatch):
    @contextlib.contextmanager
    def ends_badly(*_, **__):
        try:
            yield
        finally:
            raise RuntimeError("the capture was invalidated")

    def fail(error):
        raise error

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    for graph in (lambda *_, **__: contextlib.nullcontext(), ends_badly):
        monkeypatch.setattr(torch.cuda, "graph", graph)
        for error, told in ((ON_A_GPU, torch.OutOfMemoryError), (RuntimeError("illegal"), IncompatibleParts)):
            with pytest.raises(told):
                Recording(lambda error=error: fail(error), torch.device("cuda"))._record()
