"""Runs that start from a model: what they take over, what learns, what is saved, and what they refuse."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

import unnoise
from unnoise.adapter import ADAPTER_FILE, Adapter
from unnoise.data.base import datasets
from unnoise.errors import BadOption, IncompatibleParts, ModelFolderError, RunFolderError
from unnoise.model import Model
from unnoise.nn.lora import base_layers
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

QUICK = {
    "training__checkpoint_every": 20, "training__sample_every": 0, "training__validation_size": 64,
    "training__validate_every": 20, "training__batch_size": 64, "training__warmup": 0, "machine__precision": "fp32",
}  # fmt: skip
SHORT = {**QUICK, "training__steps": 4, "training__batch_size": 8}


def weights(model):
    return {name: value.clone() for name, value in preconditioned(model.denoiser).network.state_dict().items()}


def losses(folder):
    return [line["validation_loss"] for line in read_metrics(folder / "metrics.jsonl") if "validation_loss" in line]


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    """The digits in two files: 0 to 4, and 5 to 9."""
    folder, digits = tmp_path_factory.mktemp("halves"), datasets.build("digits").load()
    for name, low, high in (("low", 0, 5), ("high", 5, 10)):
        some = (digits.labels >= low) & (digits.labels < high)
        np.savez(folder / f"{name}.npz", x=digits.x[some].numpy(), labels=digits.labels[some].numpy())
    return {name: {"name": "array", "path": str(folder / f"{name}.npz")} for name in ("low", "high")}


@pytest.fixture(scope="session")
def base(tmp_path_factory, halves):
    """A small model of the digits 0 to 4."""
    folder = tmp_path_factory.mktemp("base") / "run"
    more = {**QUICK, "training__steps": 120, "network__width": 8, "data": halves["low"]}
    unnoise.train("digits", folder, progress=False, **more)
    return folder


def start(base, **more):
    return {"start": {"model": str(base), **more}}


def test_digits_that_it_never_saw_are_learned_by_adapters_while_its_weights_stay(tmp_path, base, halves):
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in base.rglob("*") if path.is_file()}
    more = {**QUICK, "training__steps": 60, "training__lr": 1e-2, "data": halves["high"]}
    run = Run(load_recipe("digits", **start(base, lora={"rank": 8}), **more), tmp_path / "run")
    for _ in run.events():
        pass
    first, *_, last = losses(tmp_path / "run")
    assert last < 0.93 * first
    network, own = run.state.network, weights(Model.load(base))
    for name, layer in base_layers(network).items():
        assert torch.equal(layer.weight, own[f"{name}.weight"]), name
    table = "embedding.label.weight"  # the new labels stand in it
    assert {name for name in run.state.names if ".lora." not in name} == {table}
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    adapted = weights(Model.load(tmp_path / "run"))
    changed = [name for name, value in own.items() if name != table and not torch.equal(adapted[name], value)]
    assert changed
    assert all(name.removesuffix(".weight") in base_layers(network) for name in changed)
    assert sum(t.numel() for t in run.state.slots().values()) < 5 * sum(p.numel() for p in own.values())


def test_at_its_first_step_it_is_the_model_that_it_starts_from(tmp_path, base, halves):
    run = Run(load_recipe("digits", **start(base, lora={"rank": 2}), **SHORT, data=halves["low"]), tmp_path / "run")
    one, other = run.model(), Model.load(base)
    for name, value in weights(other).items():
        assert torch.equal(weights(one)[name], value), name
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    cond = {"label": torch.tensor([0, 3, 5])}
    assert torch.equal(run.trainee.denoiser(x, t, cond), other.denoiser(x, t, cond))


def test_the_parts_of_the_model_take_the_place_of_the_recipes(base):
    recipe, own = load_recipe("images", data="digits", **start(base)), Model.load(base).blueprint
    assert recipe.network == own.network
    assert recipe.process == own.process
    assert recipe.denoiser.sigma_data == own.sigma_data
    assert recipe.codec == own.codec
    assert recipe.objective == load_recipe("digits").objective
    again = load_recipe(recipe.describe())
    assert again == recipe
    sized = load_recipe("images", data__path="pictures", **start(base))
    assert (sized.data.size, sized.data.channels) == (8, 1)
    assert load_recipe("images", data__path="pictures", data__size=16, **start(base)).data.size == 16


def test_what_a_recipe_leaves_out_is_filled_in_and_what_it_says_must_fit(tmp_path, base, halves):
    plain = {"data": halves["low"], **start(base)}
    assert load_recipe(plain).network == Model.load(base).blueprint.network
    wider = load_recipe({**plain, "network": {"name": "unet", "width": 16, "multipliers": [1, 2, 4], "blocks": 1}})
    with pytest.raises(
        IncompatibleParts, match=r"embedding\.enter\.weight is of shape \(32, 8\) in it and of shape \(64, 16\)"
    ):
        Run(wider, tmp_path / "run")
    deeper = load_recipe({**plain, "network": {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1}})
    with pytest.raises(IncompatibleParts, match="holds another network"):
        Run(deeper, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", ["grow", "replace"])
def test_labels_keep_their_rows_and_new_ones_begin_as_that_of_no_label(tmp_path, base, halves, labels):
    data = datasets.build("digits").load()
    some = (data.labels >= 3) & (data.labels < 7)
    np.savez(tmp_path / "some.npz", x=data.x[some].numpy(), labels=data.labels[some].numpy())
    settings = start(base, labels=labels, lora={"layers": "attention"})
    run = Run(
        load_recipe("digits", **settings, **SHORT, data={"name": "array", "path": str(tmp_path / "some.npz")}),
        tmp_path / "run",
    )
    old, new = weights(Model.load(base))["embedding.label.weight"], weights(run.model())["embedding.label.weight"]
    names = ("0", "1", "2", "3", "4", "5", "6") if labels == "grow" else ("3", "4", "5", "6")
    assert run.blueprint.spec.class_names == names
    for row, name in enumerate(names):
        assert torch.equal(new[row], old[int(name)] if int(name) < 5 else old[5]), name
    assert torch.equal(new[-1], old[5])
    (note,) = [note for note in run.notes if "labels" in note]
    assert "2 known" in note
    assert "2 new, which begin as no label does (5, 6)" in note
    assert ("3 of the model's dropped (0, 1, 2)" in note) == (labels == "replace")
    numbers = run.train_data.take(torch.arange(50)).labels
    expected = data.labels[some][:50]
    assert [names[k] for k in numbers.tolist()] == [str(k) for k in expected.tolist()]


def test_data_without_labels_leaves_the_model_its_own(tmp_path, base):
    data = datasets.build("digits").load()
    np.save(tmp_path / "x.npy", data.x[:100].numpy())
    run = Run(
        load_recipe("digits", **start(base), **SHORT, data={"name": "array", "path": str(tmp_path / "x.npy")}),
        tmp_path / "run",
    )
    assert any("keeps its own" in note for note in run.notes)
    for _ in run.events():
        pass
    model = Model.load(tmp_path / "run")
    assert model.spec.class_names == ("0", "1", "2", "3", "4")
    model.sample(1, label="3", steps=1)


def test_some_weights_learn_and_the_others_stay(tmp_path, base, halves):
    settings = start(base, train=["up", "leave"], freeze="*.bias")
    run = Run(load_recipe("digits", **settings, **SHORT, data=halves["low"]), tmp_path / "run")
    for _ in run.events():
        pass
    before, after = weights(Model.load(base)), weights(Model.load(tmp_path / "run"))
    learned = {name for name in before if name.startswith(("up.", "leave.")) and not name.endswith("bias")}
    for name, value in before.items():
        assert torch.equal(after[name], value) == (name not in learned), name
    assert not (tmp_path / "run" / "model" / ADAPTER_FILE).exists()


def test_the_saved_model_is_the_base_with_the_saved_adapter_merged(tmp_path, base, halves):
    more = {**SHORT, "training__lr": 1e-2}
    unnoise.train(
        "digits",
        tmp_path / "run",
        progress=False,
        **start(base, lora={"rank": 2, "alpha": 4.0}),
        **more,
        data=halves["high"],
    )
    model, plain = Model.load(tmp_path / "run"), Model.load(base)
    adapter = Adapter.load(tmp_path / "run")
    assert adapter.base == plain.weights_hash
    assert adapter.facts["rank"] == 2
    assert adapter.facts["layers"] == ["all"]
    again = plain.with_lora(tmp_path / "run")
    assert not again.notes
    assert again.spec.class_names == model.spec.class_names == tuple("0123456789")
    for name, value in weights(model).items():
        assert torch.equal(weights(again)[name], value), name
    file = tmp_path / "run" / "model" / ADAPTER_FILE
    size = next((tmp_path / "run" / "model").glob("network-*")).stat().st_size
    assert file.stat().st_size < size / 3
    assert model.trained["start"]["weights"] == plain.weights_hash


def test_another_model_in_the_place_of_the_first_is_not_gone_on_with(tmp_path, base, halves):
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    recipe = load_recipe(
        "digits", **start(copy, lora={"rank": 2}), **{**SHORT, "training__steps": 8}, data=halves["low"]
    )
    run = Run(recipe, tmp_path / "run")
    for event in run.events(stop=lambda: run.state.step >= 2):
        del event
    Run(recipe, tmp_path / "run")
    other = Model.load(copy).with_lora(tmp_path / "run", 2.0)
    other.save(copy / "model")
    with pytest.raises(RunFolderError, match=r"is not the model that the run .* started from"):
        Run(recipe, tmp_path / "run")
    shutil.rmtree(copy)
    with pytest.raises(ModelFolderError, match=r"start\.model: there is no model at"):
        Run(recipe, tmp_path / "run")
    # What was made of it can still be looked at, and its recipe read.
    assert load_recipe(recipe.describe()) == recipe
    Model.load(tmp_path / "run").sample(1, steps=1)


def test_in_bfloat16_frozen_weights_stay_as_they_were_to_the_bit(tmp_path, base, halves):
    more = {**SHORT, "machine__precision": "bf16"}
    layers = "middle"
    unnoise.train(
        "digits", tmp_path / "run", progress=False, **start(base, lora={"layers": layers}), **more, data=halves["low"]
    )
    before, after = weights(Model.load(base)), weights(Model.load(tmp_path / "run"))
    assert all(value.dtype == torch.float32 for value in after.values())
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed
    assert all(name.startswith("middle.") for name in changed)


def test_a_pattern_that_matches_nothing_is_refused_before_anything_is_written(tmp_path, base, halves):
    for settings in ({"lora": {"layers": ["mddle.*"]}}, {"train": ["mddle.*"]}, {"freeze": ["mddle.*"]}):
        with pytest.raises(BadOption, match=r"did you mean 'middle\.\*'"):
            Run(load_recipe("digits", **start(base, **settings), **SHORT, data=halves["low"]), tmp_path / "run")
    with pytest.raises(IncompatibleParts, match="makes image of shape"):
        Run(load_recipe("spiral", **start(base), **SHORT), tmp_path / "run")
    assert not (tmp_path / "run").exists()
