"""Where a model samples, and in which numbers."""

import copy

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.errors import BadOption
from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.objectives.mse import preconditioned
from unnoise.placement import WORTH_LOWERING, placed, precision_of
from unnoise.process.linear import LinearSchedule
from unnoise.registry import Choice


@pytest.fixture
def model():
    config = networks["unet"].Config(width=16, multipliers=(1, 2), blocks=1)
    blueprint = Blueprint(
        Spec("image", (3, 8, 8), ()), IdentityCodec.pixels(), LinearSchedule(), "v", 0.5, False, Choice("unet", config)
    )
    denoiser = blueprint.build(0)
    for parameter in denoiser.parameters():  # what begins at zero says nothing
        torch.nn.init.normal_(parameter, std=0.05)
    return Model(blueprint, denoiser)


def test_in_bfloat16_samples_move_by_about_a_grey_level_and_the_model_stays_what_it_is(model):
    low = model.on("cpu", "bf16")
    assert precision_of(low.denoiser) == "bf16"
    assert precision_of(model.denoiser) == "fp32"
    assert low.hash == model.hash
    fine, coarse = (m.sample(4, steps=5, seed=3) for m in (model, low))
    difference = (fine.tensor.int() - coarse.tensor.int()).abs().float()
    assert 0 < difference.mean() < 3
    assert coarse.recipe["precision"] == "bf16"
    assert "precision" not in fine.recipe
    assert low.on("cpu", "fp32") is model


def test_saving_gives_the_weights_as_they_were(model, tmp_path):
    model.on("cpu", "bf16").save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.hash == model.hash
    weights = preconditioned(loaded.denoiser).network.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in preconditioned(model.denoiser).network.state_dict().items())


def test_a_replay_is_in_the_precision_of_its_file(model):
    made = model.on("cpu", "bf16").sample(3, steps=4, seed=1)
    assert torch.equal(model.replay(made.recipe).tensor, made.tensor)
    plain = model.sample(3, steps=4, seed=1)
    assert torch.equal(model.on("cpu", "bf16").replay(plain.recipe).tensor, plain.tensor)


def test_sample_k_is_the_same_in_any_batch_up_to_rounding_in_bfloat16_too(model):
    low = model.on("cpu", "bf16")
    whole, one = low.sample(6, steps=4, seed=2), low.sample(1, steps=4, seed=2, first=5)
    assert (whole.tensor[5].int() - one.tensor[0].int()).abs().float().mean() < 2


def test_small_networks_stay_as_they_are_where_nobody_asked(model):
    assert model.on("cpu") is model
    assert placed(model.denoiser, (3, 8, 8), "cpu", "fp32") is model.denoiser
    assert WORTH_LOWERING > 1e9
    double = copy.deepcopy(model.denoiser).double()
    assert placed(double, (3, 8, 8), "cpu", "fp32") is double


def test_nothing_is_counted_where_there_is_nothing_faster(model, monkeypatch):
    monkeypatch.setattr("unnoise.placement.compute_dtype", lambda *_: torch.float32)
    monkeypatch.setattr("unnoise.placement.step_operations", lambda *_: pytest.fail("counted"))
    assert placed(model.denoiser, model.blueprint.input_shape, "cpu") is model.denoiser


def test_bad_input(model):
    with pytest.raises(BadOption, match="expected auto, cpu, cuda"):
        model.on("toaster")
    with pytest.raises(BadOption, match="precision: expected one of"):
        model.on("cpu", "fp8")
