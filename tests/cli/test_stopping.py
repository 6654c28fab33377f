"""What Ctrl-C says."""

import pytest

from unnoise.model import Model
from unnoise.shipped import SHIPPED


def interrupted(*args, **options):
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def told(said):
    assert said.code == 130, said
    (line,) = [line for line in said.err.splitlines() if line.startswith("stopped")]
    return line


def test_sampling_into_one_file_and_drawing_say_that_nothing_was_written(unnoise, monkeypatch, tmp_path):
    monkeypatch.setattr(Model, "sample", interrupted)
    assert told(unnoise("sample", "ready", "-o", "x.png")) == "stopped: nothing was written"
    monkeypatch.setattr("unnoise.recipes.gallery.forward_strip", interrupted)
    assert told(unnoise("draw", "forward", "spiral", "-o", "x.png")) == "stopped: nothing was written"
    assert not any(tmp_path.iterdir())


def test_tuning_tells_its_phases_where_no_bar_is_and_that_it_was_stopped(unnoise, monkeypatch):
    Model.load(SHIPPED["ready"]).save("mine")

    def search(*args, progress, **options):
        progress("converged samples", 0, 9)
        progress("converged samples", 1, 9)
        progress("moving times", 0, 9)
        raise KeyboardInterrupt

    monkeypatch.setattr("unnoise.recipes.tune.tune", search)
    said = unnoise("tune", "mine")
    assert told(said) == "stopped: nothing was written"
    assert [line for line in said.err.splitlines() if line.endswith("...")] == [
        "converged samples ...",
        "moving times ...",
    ]


def test_other_commands_say_that_what_was_written_stays(unnoise, monkeypatch):
    monkeypatch.setattr("unnoise.data.pack.pack", interrupted)
    assert told(unnoise("pack", ".", "-o", "out")).startswith("stopped: what was written before stays")
