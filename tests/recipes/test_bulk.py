"""Folders of many samples: their files, and that the same call goes on."""

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.data.open import source_of
from unnoise.errors import BadOption
from unnoise.model import Model, SamplingSettings
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.recipes.bulk import sample_into
from unnoise.samples import read_recipe


def a_model(seed=3):
    network = networks.build({"name": "mlp", "width": 8})
    spec = Spec("image", (1, 4, 4), ("a", "b"))
    blueprint = Blueprint(spec, IdentityCodec.pixels(), schedules.build("flow"), "velocity", 0.7, False, network)
    return Model(blueprint, blueprint.build(seed), SamplingSettings(steps=2))


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_files_are_those_of_a_model_that_saves_its_samples(tmp_path):
    model, label = a_model(), ["a", "b", "a", "a", "b", "b", "a"]
    filled = sample_into(tmp_path / "bulk", model, 7, label=label, first=2, seed=5, batch_size=3, sampler="ddim")
    assert (filled.made, filled.found, filled.whole) == (7, 0, True)
    made = model.sample(7, label=label, first=2, seed=5, batch_size=3, sampler="ddim")
    made.save(tmp_path / "saved")
    assert contents(tmp_path / "bulk") == contents(tmp_path / "saved")
    assert list(contents(tmp_path / "bulk")) == [f"{k:06d}.png" for k in range(2, 9)]
    assert torch.equal(source_of(str(tmp_path / "bulk")).load().part().x, made.tensor)
    recipe = read_recipe(tmp_path / "bulk" / "000006.png")
    assert (recipe["n"], recipe["first"], recipe["index"], recipe["label"]) == (3, 5, 6, ["a", "b", "b"])
    assert torch.equal(model.replay(recipe).tensor, made.tensor[4:5])


def test_what_stands_there_is_not_made_again_and_what_is_damaged_is(tmp_path):
    model = a_model()
    sample_into(tmp_path / "whole", model, 10, batch_size=3)
    batches = []
    model_sample = model.sample
    model.sample = lambda n, **how: (batches.append((how["first"], n)), model_sample(n, **how))[1]
    stopped = sample_into(tmp_path / "part", model, 10, batch_size=3, stop=lambda: len(batches) == 2)
    assert (stopped.made, stopped.found, stopped.whole) == (6, 0, False)
    (tmp_path / "part" / "000004.png").write_bytes(b"damaged")
    told = []
    filled = sample_into(
        tmp_path / "part", model, 10, batch_size=3, progress=lambda done, total: told.append((done, total))
    )
    assert (filled.made, filled.found, filled.whole) == (7, 3, True)
    assert batches == [(0, 3), (3, 3), (3, 3), (6, 3), (9, 1)]
    assert told[-1] == (10, 10)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    # More samples of the same batches keep those that there are; only the last, which was short, is another.
    assert (sample_into(tmp_path / "part", model, 13, batch_size=3).found) == 9


def test_files_by_another_recipe_or_model_are_replaced(tmp_path):
    sample_into(tmp_path / "out", a_model(), 4, seed=1)
    assert sample_into(tmp_path / "out", a_model(), 4, seed=2).found == 0
    assert sample_into(tmp_path / "out", a_model(4), 4, seed=2).found == 0
    moved = a_model(4)
    moved.path = "another/place"
    assert sample_into(tmp_path / "out", moved, 4, seed=2).found == 4


def test_what_cannot_be_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(BadOption, match="'c'"):
        sample_into(tmp_path / "out", a_model(), 4, label="c")
    with pytest.raises(BadOption, match="no place is called"):
        sample_into(tmp_path / "out", a_model(), 4, place="there")
    assert not (tmp_path / "out").exists()
