"""Adapters as files, and merged into models."""

import pytest
import torch

from unnoise.adapter import Adapter, adapter_spec
from unnoise.errors import BadOption, ModelFolderError, ShapeError
from unnoise.model import Model
from unnoise.nn.lora import Factors
from unnoise.objectives.mse import preconditioned
from unnoise.recipes.adapters import extracted, merged
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run

SMALL = ("network.width=8", "network.multipliers=[1, 2]", "training.steps=1", "training.batch_size=4",
         "training.sample_every=0", "training.validation_size=16", "machine.precision=fp32")  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model whose weights are all random."""
    made = Run(load_recipe("digits", SMALL), tmp_path_factory.mktemp("adapter") / "run").model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.denoiser.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return made.save(tmp_path_factory.mktemp("adapter") / "model")


def weights(model):
    return preconditioned(model.denoiser).network.state_dict()


def random_adapter(model, seed=1, layers=("middle.0.residual.conv_in", "embedding.leave"), rank=3, **about):
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name in layers:
        weight = weights(model)[f"{name}.weight"]
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / 3
        up = torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=generator) / 3
        factors[name] = Factors(down, up, 2 / 3)
    labels = model.spec.class_names
    given = {"base": model.weights_hash, "base_labels": labels, "labels": labels, "facts": {"rank": rank}, **about}
    return Adapter(factors, given.pop("whole", {}), given.pop("tables", {}), **given)


def test_a_file_holds_an_adapter_by_the_names_that_others_use_and_gives_it_back(model, tmp_path):
    loaded = Model.load(model)
    whole = {"norm.weight": weights(loaded)["norm.weight"] + 1}
    adapter = random_adapter(loaded, whole=whole)
    file = adapter.save(tmp_path / "deep" / "x.safetensors")
    from safetensors.torch import load_file

    stored = load_file(file)
    assert set(stored) == {
        "middle.0.residual.conv_in.lora_down.weight", "middle.0.residual.conv_in.lora_up.weight", "middle.0.residual.conv_in.alpha",
        "embedding.leave.lora_down.weight", "embedding.leave.lora_up.weight", "embedding.leave.alpha", "whole/norm.weight",
    }  # fmt: skip
    assert stored["middle.0.residual.conv_in.lora_down.weight"].shape == (3, 16, 3, 3)
    assert stored["middle.0.residual.conv_in.lora_up.weight"].shape == (16, 3, 1, 1)
    assert float(stored["embedding.leave.alpha"]) == pytest.approx(2)
    again = Adapter.load(file)
    assert again.encode() == adapter.encode() == file.read_bytes()
    assert again.digest == adapter.digest
    assert (again.base, again.facts) == (adapter.base, {"rank": 3})


def test_merged_the_weights_are_those_of_the_formula_times_the_strength(model):
    loaded = Model.load(model)
    whole = {"norm.weight": weights(loaded)["norm.weight"] + 1}
    adapter = random_adapter(loaded, whole=whole)
    before, after = weights(loaded), weights(loaded.with_lora(adapter, 0.25))
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        expected = value.double()
        if layer in adapter.factors and name.endswith("weight"):
            down, up, scale = adapter.factors[layer]
            expected = expected + 0.25 * scale * torch.einsum("or,r...->o...", up.double().flatten(1), down.double())
        if name in whole:
            expected = expected + 0.25
        torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-6)
    for name, value in weights(loaded.with_lora(adapter, 0.0)).items():
        assert torch.equal(value, before[name]), name


def test_several_adapters_add_up_in_any_order(model):
    loaded = Model.load(model)
    first, second = random_adapter(loaded, 1), random_adapter(loaded, 2, ("embedding.leave", "leave"), rank=2)
    one = weights(loaded.with_lora(first, 0.8).with_lora(second, -0.5))
    other = weights(loaded.with_lora(second, -0.5).with_lora(first, 0.8))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(
        one["embedding.leave.weight"], weights(loaded.with_lora(first, 0.8))["embedding.leave.weight"]
    )


def test_a_model_with_adapters_says_so_and_is_another_model(model, tmp_path):
    loaded, adapter = Model.load(model), random_adapter(Model.load(model))
    adapted = loaded.with_lora(adapter, 0.5)
    assert adapted.hash != loaded.hash
    assert adapted.trained["loras"] == [{"sha256": adapter.digest, "strength": 0.5}]
    assert not adapted.notes
    assert Model.load(adapted.save(tmp_path / "m")).hash == adapted.hash
    stranger = random_adapter(loaded, base="0" * 64)
    assert "was learned beside another model (weights 000000000000)" in loaded.with_lora(stranger).notes[0]
    assert not loaded.notes


def test_an_adapter_of_another_network_names_the_first_difference(model):
    loaded = Model.load(model)
    good = random_adapter(loaded)
    down, up, scale = good.factors["embedding.leave"]
    for name, factors, said in (
        ("elsewhere", (down, up, scale), "a layer elsewhere, which the network does not have"),
        ("embedding.leave", (down[:, :5], up, scale), r"adapts embedding\.leave\.weight by \(3, 5\)"),
        (
            "embedding.leave",
            (down, up[:, :, None, None], scale),
            r"\(32, 3, 1, 1\), which the network has as \(32, 32\)",
        ),
    ):
        bad = Adapter({name: Factors(*factors)}, {}, {}, good.base)
        with pytest.raises(
            ModelFolderError, match=f"is the adapter of another network: it adapts.*{said.removeprefix('adapts ')}"
        ):
            loaded.with_lora(bad)
    with pytest.raises(ShapeError, match="it holds nothing, which"):
        Adapter({}, {"nothing": up}, {}, good.base).apply(weights(loaded))
    with pytest.raises(BadOption, match="expected a number, got nan"):
        loaded.with_lora(good, float("nan"))


def test_new_labels_of_an_adapter_become_those_of_the_model(model):
    loaded = Model.load(model)
    table = "embedding.label.weight"
    rows = weights(loaded)[table]
    names = (*loaded.spec.class_names, "ten")
    adapter = random_adapter(loaded, tables={table: torch.cat([rows, rows[-1:]])}, labels=names)
    adapted = loaded.with_lora(adapter, 0.3)
    assert adapted.spec.class_names == names
    adapted.sample(1, label="ten", steps=1)
    with pytest.raises(BadOption, match="has labels of its own, learned beside labels 0, 1"):
        adapted.with_lora(adapter)
    assert adapted.with_lora(random_adapter(loaded)).spec.class_names == names


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b"", lambda b: b"x" * 100, lambda b: b[:-9]])
def test_a_file_that_is_no_adapter(model, tmp_path, damage):
    file = random_adapter(Model.load(model)).save(tmp_path / "x.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelFolderError, match=r"x\.safetensors is no adapter that can be read"):
        Adapter.load(file)
    with pytest.raises(ModelFolderError, match="there is no adapter at"):
        Adapter.load(tmp_path / "nowhere")
    with pytest.raises(ModelFolderError, match=r"there is no lora\.safetensors in .*--lora RANK"):
        Adapter.load(tmp_path)
    weight_file = next(model.glob("network-*"))
    with pytest.raises(ModelFolderError, match="is no adapter that can be read"):
        Adapter.load(weight_file)


def test_path_and_strength():
    assert adapter_spec("runs/cats") == ("runs/cats", 1.0)
    assert adapter_spec("runs/cats", 0.3) == ("runs/cats", 0.3)
    assert adapter_spec("runs/cats:0.8", 0.3) == ("runs/cats", 0.8)
    assert adapter_spec("runs/cats:-1") == ("runs/cats", -1.0)
    assert adapter_spec("C:/cats") == ("C:/cats", 1.0)


def test_what_was_merged_can_be_extracted_again(model, tmp_path):
    loaded = Model.load(model)
    adapter = random_adapter(loaded)
    tuned = loaded.with_lora(adapter).save(tmp_path / "tuned")
    found, kept = extracted(model, tuned, rank=3)
    assert set(found.factors) == set(adapter.factors)
    assert kept == pytest.approx(1, abs=1e-6)
    again = weights(merged(model, [(str(found.save(tmp_path / "found.safetensors")), 1.0)]))
    for name, value in weights(Model.load(tuned)).items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=2e-6)
    poorer, less = extracted(model, tuned, rank=1)
    delta = adapter.factors["embedding.leave"].delta()
    values = torch.linalg.svdvals(delta)
    error = (poorer.factors["embedding.leave"].delta() - delta).norm()
    assert float(error) == pytest.approx(float(values[1:].norm()), rel=1e-3)  # no matrix of rank 1 is nearer
    assert less < 0.95
    with pytest.raises(BadOption, match="nothing to extract"):
        extracted(model, model)
    with pytest.raises(BadOption, match="rank: must be at least 1"):
        extracted(model, tuned, rank=0)


def test_models_of_different_networks_have_no_adapter_between_them(model, tmp_path):
    other = Run(load_recipe("digits", (*SMALL[1:], "network.width=16")), tmp_path / "run").model().save(tmp_path / "m")
    with pytest.raises(ModelFolderError, match=r"different networks: embedding\.enter\.weight is \(32, 8\)"):
        extracted(model, other)


def test_grouped_convolutions_keep_their_form_when_extracted():
    from unnoise.recipes.adapters import _nearest

    generator = torch.Generator().manual_seed(0)
    change = torch.randn(8, 3, 3, 3, generator=generator, dtype=torch.float64)  # of 2 groups: 6 channels in, 8 out
    factors, energy = _nearest(change, 4, 2)
    assert factors.fits(change)
    torch.testing.assert_close(factors.delta(), change, rtol=0, atol=1e-6)  # a block of 4 rows has no higher rank
    assert energy == pytest.approx(float(change.square().sum()))
