"""The scale of a guidance that was distilled into a network: asked for, told to every call, kept in files, and not trained anew."""

import json

import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import unnoise
from unnoise.blueprint import Blueprint
from unnoise.cli.main import app
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.data.digits import DigitsDataset
from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.shelf import Shelf
from unnoise.errors import BadOption
from unnoise.model import Model, SamplingSettings
from unnoise.nn.base import networks
from unnoise.nn.flux import Flux
from unnoise.objectives.mse import preconditioned
from unnoise.process.flow import FlowSchedule
from unnoise.recipes.judging.subject import ModelSubject, Request
from unnoise.recipes.judging.sweep import Axis
from unnoise.recipes.recipe import load_recipe
from unnoise.samples import read_recipe
from unnoise.serving.app import create
from unnoise.serving.schemas import ImagesAsked, JobAsked
from unnoise.studio.denoise import brief

FLUX = {"name": "flux", "width": 16, "heads": 2, "double_blocks": 1, "single_blocks": 1}
REFUSED = (
    "embedded_guidance: no guidance was distilled into this model, whose network is told no scale; leave it out, or give "
    "`guidance`, which steers any model"
)


def make(guidance=True):
    """A model of the digits, whose every weight matters."""
    choice = networks.build({**FLUX, "guidance": guidance})
    spec = Spec("image", (1, 8, 8), tuple("0123456789"))
    blueprint = Blueprint(spec, IdentityCodec.pixels(), FlowSchedule(), "velocity", 0.7, False, choice)
    model = Model(blueprint, blueprint.build(3), SamplingSettings(steps=3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model


def told(model):
    """The scales that the network is told, a list for each call that is made from here on."""
    calls = []
    network = preconditioned(model.denoiser).network
    network.register_forward_pre_hook(
        lambda _, given: calls.append([round(g, 4) for g in network.guidance(given[2], given[0]).tolist()])
    )
    return calls


def test_the_network_is_told_the_scale_in_every_call_and_one_where_nobody_says():
    model = make()
    calls = told(model)
    plain = model.sample(2, label="3").tensor
    assert calls == [[1.0, 1.0]] * 3
    assert torch.equal(model.sample(2, label="3", embedded_guidance=1).tensor, plain)
    calls.clear()
    steered = model.sample(2, label="3", embedded_guidance=3.5).tensor
    assert calls == [[3.5, 3.5]] * 3
    assert (steered.int() - plain.int()).abs().max() > 2
    calls.clear()
    assert not torch.equal(
        model.sample(1, embedded_guidance=3.5).tensor, model.sample(1).tensor
    )  # nothing is asked for
    assert calls == [[3.5]] * 3 + [[1.0]] * 3


def test_guidance_that_makes_two_calls_tells_both_of_them_the_scale():
    model = make()
    calls = told(model)
    model.sample(1, label="3", guidance=2.0, embedded_guidance=3.5)
    assert calls == [[3.5, 3.5]] * 3
    calls.clear()
    model.sample(1, label="3", guidance=0.0, embedded_guidance=3.5)
    assert calls == [[3.5]] * 3


def test_a_weaker_model_is_told_the_same_scale(tmp_path, monkeypatch):
    model, calls, known = make(), [], Flux.guidance
    model.save(tmp_path / "weak")
    monkeypatch.setattr(
        Flux, "guidance", lambda self, *given: calls.append(known(self, *given).tolist()) or known(self, *given)
    )
    model.sample(
        1,
        label="3",
        guidance={"name": "autoguidance", "weak": str(tmp_path / "weak"), "scale": 2.0},
        embedded_guidance=3.5,
    )
    assert calls == [[3.5]] * 6


def test_a_file_carries_the_scale_and_is_made_again_by_it(tmp_path):
    model = make()
    model.save(tmp_path / "model")
    args = ["sample", str(tmp_path / "model"), "-n", "1", "--label", "3", "--embedded-guidance", "3.5"]
    done = CliRunner().invoke(app, [*args, "-o", str(tmp_path / "three.png")])
    assert done.exit_code == 0, done.output
    recipe = read_recipe(tmp_path / "three.png")
    assert recipe["embedded_guidance"] == 3.5
    assert "Distilled CFG Scale: 3.5" in (tmp_path / "three.png").read_bytes().decode("latin-1")
    made = model.sample(1, label="3", embedded_guidance=3.5).tensor
    assert torch.equal(unnoise.load(tmp_path / "model").replay(recipe).tensor, made)
    assert not torch.equal(made, model.sample(1, label="3").tensor)
    assert "embedded_guidance" not in model.sample(1).recipe
    args[-1] = "2"
    assert CliRunner().invoke(app, [*args, "-o", str(tmp_path / "folder")]).exit_code == 0
    (one,) = (tmp_path / "folder").iterdir()
    assert read_recipe(one)["embedded_guidance"] == 2.0


def test_a_server_is_asked_for_it_by_the_same_name():
    for asked in (JobAsked(embedded_guidance=3.5), ImagesAsked(embedded_guidance=3.5)):
        assert asked.request("model", "").asked()["embedded_guidance"] == 3.5


def test_a_front_end_of_the_web_ui_sends_it_to_every_model_and_only_one_that_takes_it_is_told(tmp_path):
    model = make()
    model.save(tmp_path / "told")
    make(guidance=False).save(tmp_path / "plain")
    shelf = Shelf({name: tmp_path / name for name in ("told", "plain")})
    assert [card.takes_embedded_guidance for card in shelf.cards()] == [False, True]
    with TestClient(create(Engine(shelf, Results(tmp_path / "results"))), "http://127.0.0.1") as client:
        for name, scale in (("told", 3.5), ("plain", None)):
            asked = {"prompt": "3", "seed": 1, "distilled_cfg_scale": 3.5}
            asked["override_settings"] = {"sd_model_checkpoint": name}
            answer = client.post("/sdapi/v1/txt2img", json=asked).json()
            assert json.loads(answer["info"])["recipe"].get("embedded_guidance") == scale
        assert [each["embedded_guidance"] for each in map(brief, shelf.cards())] == [False, True]


def test_a_model_is_judged_and_swept_by_it():
    model, digits = make(), DigitsDataset().load()
    plain, told = (ModelSubject(model, Request(embedded_guidance=scale), digits) for scale in (None, 3.5))
    assert "embedded_guidance" not in plain.describe()
    assert told.describe()["embedded_guidance"] == 3.5
    asked = {"label": told.labels(2).tolist(), "embedded_guidance": 3.5}
    assert torch.equal(told.samples(0, 2), model.sample(2, **asked).tensor)
    assert not torch.equal(told.samples(0, 2), plain.samples(0, 2))
    assert Axis.parse("embedded_guidance=1,3.5").values == ("1", "3.5")
    with pytest.raises(BadOption) as caught:
        ModelSubject(make(guidance=False), Request(embedded_guidance=3.5), digits)
    assert str(caught.value) == REFUSED


def test_a_drawing_of_the_way_from_noise_is_made_with_it(tmp_path):
    make().save(tmp_path / "model")
    calls = []
    for scale in ("1", "3.5"):
        out = tmp_path / f"{scale}.png"
        args = ["draw", "reverse", str(tmp_path / "model"), "-o", str(out), "-n", "1", "--embedded-guidance", scale]
        done = CliRunner().invoke(app, args)
        assert done.exit_code == 0, done.output
        calls.append(out.read_bytes())
    assert calls[0] != calls[1]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "much"])
def test_what_is_no_scale_is_refused(wrong):
    with pytest.raises(BadOption) as caught:
        make().sample(1, embedded_guidance=wrong)
    assert str(caught.value) == f"embedded_guidance: expected a number of at least 0, got {wrong!r}"


def test_a_model_that_is_told_no_scale_says_so():
    with pytest.raises(BadOption) as caught:
        make(guidance=False).sample(1, label="3", embedded_guidance=3.5)
    assert str(caught.value) == REFUSED


RECIPE = {
    "data": "digits",
    "process": "flow",
    "denoiser": {"name": "velocity"},
    "network": {**FLUX, "guidance": True},
    "training": {"steps": 2, "batch_size": 4, "validate_every": 100, "sample_every": 0, "validation_size": 16},
}


def test_it_is_learned_from_nothing_by_no_recipe():
    with pytest.raises(BadOption) as caught:
        load_recipe(RECIPE)
    assert str(caught.value) == (
        "network.guidance: no guidance is distilled into what is trained here, so that the scale would say nothing: leave it out, "
        "or start from a model that has it"
    )


def test_a_model_that_has_it_is_trained_on_and_still_told_it(tmp_path):
    model = make()
    model.save(tmp_path / "model")
    further = {name: value for name, value in RECIPE.items() if name in ("data", "training")}
    run = load_recipe({**further, "start": {"model": str(tmp_path / "model")}})
    trained = unnoise.train(run, tmp_path / "run", progress=False)
    calls = told(trained)
    trained.sample(1, embedded_guidance=3.5, steps=1)
    assert calls == [[3.5]]
