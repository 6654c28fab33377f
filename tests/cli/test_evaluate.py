"""`unnoise evaluate`, `compare` and `grid`, as a person calls them."""

import json
import os
import signal
import threading

import numpy as np
import pytest

from unnoise.data.base import datasets
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

TINY = (
    "training.steps=60", "training.checkpoint_every=60", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=60", "network.width=16", "training.batch_size=32", "training.lr=2e-3", "sampling.steps=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "moons"
    for _ in Run(load_recipe("two-moons-labels", TINY), str(folder)).events():
        pass
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_table_names_every_metric_with_its_interval(unnoise, moons):
    said = unnoise("evaluate", moons, "-n", 100)
    assert said.code == 0, said
    header, *rows = said.out.splitlines()
    assert header.split() == [
        "made",
        "95",
        "%",
        "interval",
        "real",
        "95",
        "%",
        "interval",
        "better",
        "made",
        "/",
        "real",
    ]
    for name in ("energy distance", "sliced Wasserstein", "Wasserstein, exact", "MMD²", "shows what was asked for"):
        assert any(row.startswith(name) for row in rows), name
    assert any(row.startswith("copies") for row in rows)
    page = next(row.split()[-1] for row in rows if row.startswith("page"))
    assert page.startswith(str(moons / "evaluation" / "dpmpp_2m-4-g"))


def test_json_is_the_file_that_was_written(unnoise, moons, tmp_path):
    said = unnoise("evaluate", moons, "-n", 60, "--metrics", "energy", "--json", "-o", tmp_path / "out")
    assert said.code == 0, said
    assert json.loads(said.out) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert list(json.loads(said.out)["metrics"]) == ["energy"]


def test_options_of_the_parts_are_set(unnoise, moons, refused, tmp_path):
    said = unnoise("evaluate", moons, "sampler.eta=0.5", "--sampler", "ddim", "-n", 40, "--metrics", "energy", "--json",
                   "-o", tmp_path / "out")  # fmt: skip
    assert json.loads(said.out)["subject"]["sampler"] == {"name": "ddim", "eta": 0.5}
    assert "--sampler" in refused("evaluate", moons, "sampler.eta=0.5")
    assert "features.OPTION" in refused("evaluate", moons, "data.path=x")


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(unnoise, moons, tmp_path, monkeypatch):
    from unnoise.recipes.judging.blocks import BlockFolder

    monkeypatch.setattr("unnoise.recipes.judging.evaluation.block_size", lambda shape: 20)
    write, hit = BlockFolder.write, threading.Event()

    def interrupted(self, block, values):
        write(self, block, values)
        if self.folder.name == "samples" and block.first == 20 and not hit.is_set():
            hit.set()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(BlockFolder, "write", interrupted)
    arguments = (
        "evaluate",
        moons,
        "-n",
        80,
        "--metrics",
        "energy",
        "--no-memorisation",
        "-o",
        tmp_path / "out",
        "--json",
    )
    said = unnoise(*arguments)
    assert said.code == 130
    assert "the same command goes on" in said.err
    assert len(list((tmp_path / "out" / "samples").glob("*.npy"))) == 2
    again = unnoise(*arguments)
    assert again.code == 0
    whole = unnoise(*arguments[:-2], tmp_path / "whole", "--json")
    assert json.loads(again.out)["metrics"] == json.loads(whole.out)["metrics"]


def test_models_are_put_side_by_side(unnoise, moons, tmp_path):
    said = unnoise("compare", moons, f"{moons}@steps=1", "-n", 100, "--metrics", "energy", "--no-memorisation")
    assert said.code == 0, said
    header, row, *_ = said.out.splitlines()
    assert header.split() == ["moons", "moons@steps=1", "better"]
    assert row.startswith("energy distance")
    assert "best" in row
    assert (tmp_path / "comparison" / "index.html").is_file()


def test_a_grid_is_drawn_and_told(unnoise, moons, tmp_path):
    said = unnoise("grid", moons, "--x", "steps=1,4", "--y", "guidance=1,2", "-n", 40, "-o", tmp_path / "grid")
    assert said.code == 0, said
    header, first, second, *_ = said.out.splitlines()
    assert header.split() == ["energy", "distance", "steps", "1", "steps", "4"]
    assert first.startswith("guidance 1")
    assert second.startswith("guidance 2")
    assert {path.name for path in (tmp_path / "grid").iterdir()} == {
        "steps-guidance-samples.png", "steps-guidance-energy.png", "steps-guidance.html", "steps-guidance.json",
    }  # fmt: skip


def test_bad_input_is_one_line(refused, moons, tmp_path):
    data = datasets.build("digits").load()
    np.savez(tmp_path / "digits.npz", x=data.x.numpy())
    assert "fid" in refused("evaluate", moons, "--metrics", "fidd")
    assert "nothing at" in refused("evaluate", tmp_path / "nowhere", "--data", "digits")
    assert "points" in refused("evaluate", moons, "--data", tmp_path / "digits.npz")
    assert "--data" in refused("evaluate", tmp_path / "digits.npz")
    assert "at least 2" in refused("evaluate", moons, "-n", 1)
    assert "steps" in refused("grid", moons, "--x", "stps=1,2")
    assert "at least two" in refused("compare", moons)
    assert "steps" in refused("compare", moons, f"{moons}@steps=none")
    assert "ghost" in refused("evaluate", moons, "--features", "ghost")


@pytest.fixture
def own(unnoise, tmp_path, monkeypatch):
    """A folder in which a run on a table was begun by a relative path, and another folder beside it, where we are now."""
    (tmp_path / "own").mkdir()
    (tmp_path / "elsewhere").mkdir()
    rows = np.random.default_rng(0).normal(size=(200, 2))
    np.savetxt(tmp_path / "own" / "good.csv", rows, delimiter=",", header="x,y", comments="")
    monkeypatch.chdir(tmp_path / "own")
    said = unnoise("train", "spiral", "--data", "good.csv", "--out", "run", *TINY[:-1], "training.steps=4")
    assert said.code == 0, said
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "own"


def test_a_run_on_a_relative_path_is_judged_from_another_folder(unnoise, own):
    said = unnoise("evaluate", "../own/run", "-n", 50, "--metrics", "energy")
    assert said.code == 0, said
    assert "copies" in said.out


def test_what_a_run_learned_and_what_is_gone_is_not_needed_beside_other_data(unnoise, own):
    (own / "good.csv").rename("moved.csv")
    asked = ("evaluate", "../own/run", "-n", 50, "--metrics", "energy", "--data", "moved.csv")
    said = unnoise(*asked, "--no-memorisation")
    assert said.code == 0, said
    assert "--train" not in said.err
    said = unnoise(*asked)
    assert said.code == 0, said
    assert "copies" not in said.out
    assert "copies were not looked for: what the model learned from is not found" in said.err
    assert "give it with --train" in said.err
    said = unnoise(*asked, "--train", "moved.csv")
    assert said.code == 0, said
    assert "copies" in said.out


def test_a_run_whose_data_is_gone_asks_for_data(refused, own):
    (own / "good.csv").unlink()
    assert "give it with --data" in refused("evaluate", "../own/run", "-n", 50)


def test_points_and_pictures_are_not_compared_and_the_message_says_which_is_which(refused, moons):
    said = refused("evaluate", moons, "--data", "digits")
    assert (
        "what the model makes cannot be compared with the real data: points with pictures: give data of one kind"
        in said
    )
