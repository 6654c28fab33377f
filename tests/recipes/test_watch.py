"""What a person sees of a run while it makes no steps."""

import threading

import pytest

from unnoise.recipes import watch as watching
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import SamplesDue, Stepped, Validated, Working

TINY = (
    "training.steps=2", "training.checkpoint_every=2", "training.sample_every=2", "training.validation_size=16",
    "training.validate_every=2", "network.width=8", "training.batch_size=8", "evaluation.every=0",
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return Run(load_recipe("spiral", TINY), tmp_path / "run")


def test_what_takes_long_is_told_before_it_begins(run):
    events = [event for event in run.events() if isinstance(event, Working | Stepped | Validated | SamplesDue)]
    kinds = [event.what if isinstance(event, Working) else type(event).__name__ for event in events]
    assert kinds == [
        "preparing", "", "validating", "Validated", "Stepped", "Stepped", "validating", "Validated", "drawing samples",
        "SamplesDue",
    ]  # fmt: skip


@pytest.mark.parametrize("patience", [0.05, 60.0])
def test_where_nobody_watches_a_bar_a_line_tells_what_takes_longer(run, monkeypatch, patience):
    line, said, told, draw = "step       2  drawing samples ...", [], threading.Event(), run.work.draw

    def slow(self, *args):
        told.wait(30 if patience < 1 else 0.5)
        return draw(*args)

    monkeypatch.setattr(watching, "say", lambda text: said.append(text) or (text == line and told.set()))
    monkeypatch.setattr(watching, "PATIENCE", patience)
    monkeypatch.setattr(type(run.work), "draw", slow)
    assert watching.watch(run)
    assert (line in said) == (patience < 1)
