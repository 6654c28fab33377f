"""One model over two settings."""

import json

import pytest
from PIL import Image

from unnoise.errors import BadOption
from unnoise.model import Model
from unnoise.recipes.judging.run import evaluate
from unnoise.recipes.judging.sweep import Axis, sweep


def test_every_cell_is_the_evaluation_of_its_settings(moons, tmp_path):
    made = sweep(Model.load(moons), Axis.parse("steps=2,8"), Axis.parse("guidance=1,3"), n=60, out=tmp_path / "grid")
    assert [len(row) for row in made.cells] == [2, 2]
    for row, guidance in zip(made.cells, (1.0, 3.0), strict=True):
        for cell, steps in zip(row, (2, 8), strict=True):
            alone = evaluate(
                moons, n=60, steps=steps, guidance=guidance, metrics=("energy",), memorisation=False,
                out=tmp_path / f"{steps}-{guidance}",
            )  # fmt: skip
            assert cell["energy"].value == alone.result.estimates["energy"].value
    written = json.loads((tmp_path / "grid" / "steps-guidance.json").read_text())
    assert written["x"] == {"name": "steps", "values": ["2", "8"]}
    assert written["cells"][1][0]["energy"]["value"] == made.cells[1][0]["energy"].value
    for name in ("samples", "energy"):
        with Image.open(tmp_path / "grid" / f"steps-guidance-{name}.png") as picture:
            assert picture.width > 200


@pytest.mark.usefixtures("quick_features")
def test_one_setting_alone_makes_one_row(digits, tmp_path):
    made = sweep(Model.load(digits), Axis.parse("sampler=ddim,heun"), n=20, out=tmp_path / "grid",
                 settings=None)  # fmt: skip
    assert len(made.cells) == 1
    assert set(made.cells[0][0]) == {"kid", "accuracy"}
    assert (tmp_path / "grid" / "sampler.html").is_file()


@pytest.mark.parametrize(
    ("text", "said"), [("steps", "steps=5,10,20"), ("steps=", "steps=5,10,20"), ("step=5", "no such setting")]
)
def test_a_setting_that_is_none_is_refused(text, said):
    with pytest.raises(BadOption, match=said):
        Axis.parse(text)


def test_a_value_that_is_none_is_refused_before_anything_is_made(moons, tmp_path):
    with pytest.raises(BadOption, match="steps"):
        sweep(Model.load(moons), Axis.parse("steps=4,none"), n=20, out=tmp_path / "grid")
    with pytest.raises(BadOption, match="two settings"):
        sweep(Model.load(moons), Axis.parse("steps=4"), Axis.parse("steps=5"), n=20, out=tmp_path / "grid")
    assert not (tmp_path / "grid").exists()
