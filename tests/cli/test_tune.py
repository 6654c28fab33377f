"""`unnoise tune`, and sampling with what it has found."""

import json

import numpy as np
import pytest
from PIL import Image

from unnoise.model import Model
from unnoise.samples import read_recipe

TINY = (
    "training.steps=60", "training.checkpoint_every=60", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=60", "network.width=16", "training.batch_size=32", "training.lr=2e-3",
)  # fmt: skip


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    from unnoise.recipes.recipe import load_recipe
    from unnoise.recipes.run import Run

    folder = tmp_path_factory.mktemp("tuned") / "moons"
    run = Run(load_recipe("two-moons-labels", TINY), str(folder))
    for _ in run.events(lambda: False):
        pass
    return folder


def test_tuning_tells_its_table_and_the_model_samples_with_it(unnoise, moons, tmp_path):
    said = unnoise("tune", moons, "--steps", 5, "--samples", 40)
    assert said.code == 0, said
    rows = said.out.splitlines()
    assert rows[2].split()[-3] == "tuned"
    distances = [float(row.split()[-1]) for row in rows[2:15]]
    assert distances[0] < distances[1]
    assert distances[1:] == sorted(distances[1:])
    assert "tuned / dpmpp_2m on its best fixed grid" in said.out
    table = json.loads((moons / "model" / "tuned-5-table.json").read_text())
    assert table[0]["grid"] == "tuned"
    assert {row["calls"] for row in table} >= {2, 5, 10}
    with Image.open(moons / "model" / "tuned-5.png") as plot:
        assert plot.width > 600
    made = tmp_path / "made.npz"
    assert unnoise("sample", moons, "--sampler", "tuned", "--steps", 5, "-n", 6, "-o", made).code == 0
    recipe = read_recipe(made)
    entry = Model.load(moons).tuned[5]
    assert recipe["sampler"] == entry["sampler"]
    assert recipe["grid"] == entry["times"]
    assert unnoise("replay", made, "-o", tmp_path / "again.npz").code == 0
    assert (tmp_path / "again.npz").read_bytes() == made.read_bytes()
    by_hand = Model.load(moons).sample(6, sampler=entry["sampler"], grid=entry["times"], steps=len(entry["times"]) - 1)
    np.testing.assert_array_equal(by_hand.tensor.numpy(), np.load(made)["x"])


def test_what_is_not_tuned_is_said(refused, unnoise, moons):
    assert unnoise("tune", moons, "--steps", 3, "--samples", 8, "--guidance", 1).code == 0
    line = refused("sample", moons, "--sampler", "tuned", "--steps", 9)
    assert "not tuned for 9 steps" in line
    assert "3" in line
    assert "--steps 9" in line
    assert "neither" in refused("sample", moons, "--sampler", "tuned", "--steps", 3, "--grid", "uniform")
    assert "at least 2" in refused("tune", moons, "--steps", 1)
    assert "at least 4" in refused("tune", moons, "--samples", 2)
    file = moons / "model" / "tuned.json"
    whole = json.loads(file.read_text())
    whole["tuned"]["3"]["model"] = "0" * 64
    file.write_text(json.dumps(whole))
    assert "trained on since" in refused("sample", moons, "--sampler", "tuned", "--steps", 3)
    file.write_text("{")
    said = unnoise("sample", moons, "--sampler", "tuned", "--steps", 3)
    assert said.code == 2
    assert "is damaged" in said.err


def test_a_dry_run_writes_nothing(unnoise, moons):
    before = sorted(path.name for path in (moons / "model").iterdir())
    assert unnoise("tune", moons, "--steps", 2, "--samples", 8, "--guidance", 1, "--dry-run").code == 0
    assert sorted(path.name for path in (moons / "model").iterdir()) == before
