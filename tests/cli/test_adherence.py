"""`unnoise adherence`: the data itself, and what is refused."""

import json

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_data_itself_does_what_its_captions_say(unnoise, tmp_path):
    said = unnoise("adherence", "shapes", "-n", 40, "--split", "train", "--json")
    assert said.code == 0, said
    (found,) = json.loads(said.out)["settings"]
    assert (found["n"], found["everything"]["value"]) == (40, 1)
    assert found["everything"]["low"] > 0.9
    assert (tmp_path / "adherence" / "index.html").is_file()
    said = unnoise("adherence", "shapes", "-n", 40, "--objects", 1, "--json", "-o", "one")
    (found,) = json.loads(said.out)["settings"]
    assert list(found["groups"]) == ["one object"]
    said = unnoise("adherence", "shapes", "-n", 10, "-o", "b")
    header, line, page = said.out.splitlines()
    assert header.split()[:2] == ["guidance", "steps"]
    assert "100.0%" in line
    assert page.split() == ["page", "b/index.html"]


def test_what_cannot_be_judged_is_refused_in_one_line(unnoise, refused, tmp_path):
    assert "no captions" in refused("adherence", "digits")
    assert "n: must be at least 1" in refused("adherence", "shapes", "-n", 0)
    assert "objects: must be from 1 to 4, got 5" in refused("adherence", "shapes", "--objects", 5)
    assert "split" in refused("adherence", "shapes", "--split", "test")
    assert "there is nothing at nowhere" in refused("adherence", "nowhere")
    quick = ("training.steps=2", "training.sample_every=0", "training.validation_size=16", "network.width=8")
    assert unnoise("train", "digits", "--out", tmp_path / "digits", *quick, "network.attention=[]").code == 0
    assert "square colour pictures" in refused("adherence", tmp_path / "digits")
    assert "guidance: expected numbers" in refused("adherence", tmp_path / "digits", "--guidance", "1,much")
    assert "steps: must be at least 1" in refused("adherence", tmp_path / "digits", "--steps", "0")
