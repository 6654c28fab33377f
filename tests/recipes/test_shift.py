"""The shift of a straight path that a recipe leaves to its data: what it becomes, and that training and sampling go by it."""

import math

import pytest
import torch

import unnoise
from unnoise.errors import BadOption
from unnoise.process.flow import FlowSchedule, shift_for
from unnoise.recipes.prepare import prepare
from unnoise.recipes.recipe import load_recipe

DIT = {"name": "dit", "width": 16, "depth": 1, "heads": 2, "patch": 2}
MMDIT = {"name": "mmdit", "width": 16, "depth": 1, "heads": 2, "patch": 2}
UNET = {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1}


def recipe(shift, network=MMDIT, **more):
    return load_recipe(
        {
            "data": "digits",
            "process": {"name": "flow", "shift": shift},
            "denoiser": {"name": "velocity"},
            "network": network,
            "objective": {"name": "mse", "times": {"name": "logit_normal"}},
            "training": {
                "steps": 4, "batch_size": 8, "lr": 0.01, "warmup": 0, "ema": 0.5, "validate_every": 100, "sample_every": 0,
                "validation_size": 16,
            },
            "machine": {"precision": "fp32"},
            "sampling": {"sampler": "euler", "steps": 3},
            **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "network", "number"),
    [
        ("size", MMDIT, math.sqrt(64 / 1024)),
        ("size", UNET, math.sqrt(64 / 1024)),
        ("tokens", MMDIT, shift_for(16)),
        ("tokens", {**DIT, "patch": [2, 4]}, shift_for(8)),
        (3.0, UNET, 3.0),
    ],
)
def test_what_is_prepared_holds_the_number(shift, network, number):
    asked = recipe(shift, network)
    prepared = prepare(asked)
    assert prepared.blueprint.process == FlowSchedule(round(number, 6))
    assert prepared.recipe.process == prepared.blueprint.process
    assert asked.process.shift == shift


def test_data_without_size_and_networks_without_patches_are_refused_in_one_line():
    with pytest.raises(BadOption) as caught:
        prepare(recipe("size", {"name": "mlp", "width": 8}, data="spiral"))
    assert str(caught.value) == (
        "process.shift: size is about pictures, sequences and videos, and this data is points: give a number"
    )
    with pytest.raises(BadOption) as caught:
        prepare(recipe("tokens", UNET))
    assert str(caught.value) == (
        "process.shift: tokens are patches, and this network cuts the data into none: give size, or a number"
    )


def test_a_shifted_run_trains_and_samples_by_its_number_and_resumes(tmp_path):
    model = unnoise.train(recipe("size"), tmp_path / "run", progress=False)
    again = unnoise.load(tmp_path / "run")
    assert again.describe()["process"] == {"name": "flow", "shift": 0.25}
    half = torch.tensor(0.5, dtype=torch.float64)
    assert float(again.denoiser.schedule.sigma(half)) == pytest.approx(0.25 * 0.5 / (1 - 0.75 * 0.5))
    made = again.sample(2, label="3", guidance=2.0).tensor
    assert torch.equal(made, model.sample(2, label="3", guidance=2.0).tensor)
    told = unnoise.train(recipe(0.25), tmp_path / "told", progress=False)
    plain = unnoise.train(recipe(1.0), tmp_path / "plain", progress=False)
    assert told.weights_hash == model.weights_hash != plain.weights_hash
    assert not torch.equal(made, plain.sample(2, label="3", guidance=2.0).tensor)
    resumed = unnoise.train(recipe("size"), tmp_path / "run", progress=False)  # the same recipe, which holds no number
    assert resumed.hash == model.hash


def test_the_middle_of_what_is_trained_lies_at_the_shifted_noise():
    times = recipe("size").objective.times
    u = (torch.arange(2001, dtype=torch.float64) + 0.5) / 2001
    for shift in (0.25, 1.0, 3.0):
        schedule = FlowSchedule(shift)
        sigma = schedule.sigma(times.quantile(u, schedule))
        assert float(sigma.median()) == pytest.approx(shift / (1 + shift), abs=1e-9)  # its logit is ln shift


def test_the_doctor_looks_at_a_run_that_left_its_shift_to_the_data(tmp_path):
    from unnoise.recipes.diagnosis.examine import examine_recipe, examine_run

    unnoise.train(recipe("size"), tmp_path / "run", progress=False)
    for diagnosis in (examine_run(tmp_path / "run"), examine_recipe(recipe("size"))):
        assert not [note for note in diagnosis.notes if "could not be looked at" in note]
