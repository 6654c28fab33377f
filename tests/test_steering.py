"""What helps guidance from a folder: found, checked, carried by files, and found again."""

import json

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import BadOption, IncompatibleParts, ModelFolderError
from unnoise.guidance.autoguidance import AutoGuidance
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier import ClassifierGuidance
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.model import Model, SamplingSettings, load
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.recipes.classifier import learn_classifier
from unnoise.samples import read_recipe
from unnoise.steering import check_place, read_classifier, space_of, write_classifier
from unnoise.training.classifier import ClassifierSettings


def make(labels=("a", "b"), process="cosine", seed=0, codec=None, shape=(2,)):
    blueprint = Blueprint(
        Spec("points", shape, labels), codec or IdentityCodec(), schedules.build(process), "v", 1.0, False,
        networks.build({"name": "mlp", "width": 8}),
    )  # fmt: skip
    model = Model(blueprint, blueprint.build(seed), SamplingSettings(steps=4))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def judge(model, labels=("a", "b"), seed=5):
    classifier = NoisyClassifier(model.spec.shape, labels, options={"width": 8})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in classifier.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return classifier


@pytest.fixture
def folders(tmp_path):
    """A model, a weaker one, and a classifier."""
    model = make()
    model.save(tmp_path / "model")
    make(seed=1).save(tmp_path / "weak")
    write_classifier(tmp_path / "judge", judge(model), model.blueprint)
    return tmp_path


def rules(folders):
    return {
        "autoguidance": {"name": "autoguidance", "scale": 2.0, "weak": str(folders / "weak")},
        "classifier": {"name": "classifier", "scale": 3.0, "classifier": str(folders / "judge")},
    }


NAMES = ["autoguidance", "classifier"]


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_guided_by_what_stands_in_the_folder(folders, name):
    model = load(folders / "model")
    made = model.sample(3, label="a", guidance=rules(folders)[name])
    network = load(folders / "weak").denoiser if name == "autoguidance" else read_classifier(folders / "judge")[0]
    rule = AutoGuidance(network, 2.0) if name == "autoguidance" else ClassifierGuidance(network, 3.0)
    by_hand = Model(model.blueprint, model.denoiser, model.sampling)
    by_hand._helps.armed = lambda _: rule
    expected = by_hand.sample(3, label="a")
    assert torch.equal(made.tensor, expected.tensor)
    assert not torch.equal(made.tensor, model.sample(3, label="a").tensor)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_carries_the_hash_of_what_guided_it_and_is_made_again(folders, name):
    model = load(folders / "model")
    (file,) = model.sample(3, label="a", guidance=rules(folders)[name]).save(folders / "x.npz")
    recipe = read_recipe(file)
    assert recipe["guidance"]["sha256"] == (
        load(folders / "weak").hash if name == "autoguidance" else read_classifier(folders / "judge")[2]
    )
    again = load(folders / "model").replay(recipe)
    assert torch.equal(again.tensor, model.replay(recipe).tensor)
    (second,) = again.save(folders / "y.npz")
    assert second.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("name", "folder"), [("autoguidance", "weak"), ("classifier", "judge")])
def test_help_that_was_moved_is_found_with_guide_and_other_help_is_refused(folders, name, folder):
    model = load(folders / "model")
    made = model.sample(2, label="b", guidance=rules(folders)[name])
    recipe = json.loads(json.dumps(made.recipe))
    (folders / folder).rename(folders / "moved")
    with pytest.raises(
        ModelFolderError, match=rf"guidance\.{'weak' if folder == 'weak' else 'classifier'}: there is no"
    ):
        load(folders / "model").replay(recipe)
    again = load(folders / "model").replay(recipe, guide=str(folders / "moved"))
    assert torch.equal(again.tensor, made.tensor)
    assert again.recipe == recipe
    if name == "autoguidance":
        make(seed=2).save(folders / "other")
    else:
        write_classifier(folders / "other", judge(model, seed=6), model.blueprint)
    with pytest.raises(ModelFolderError, match=r"what is asked for has .*--guide"):
        load(folders / "model").replay(recipe, guide=str(folders / "other"))


def test_a_guide_where_nothing_guided_is_refused(folders):
    model = load(folders / "model")
    with pytest.raises(BadOption, match="leave --guide out"):
        model.replay(model.sample(1).recipe, guide=str(folders / "weak"))


def test_a_model_without_labels_is_guided_by_those_of_a_classifier(tmp_path):
    model = make(labels=())
    write_classifier(tmp_path / "judge", judge(model), model.blueprint)
    rule = {"name": "classifier", "scale": 4.0, "conditional": False, "classifier": str(tmp_path / "judge")}
    a, b, plain = (model.sample(2, label=label, guidance=rule if label else 1.0).tensor for label in ("a", "b", None))
    assert not torch.equal(a, b)
    assert not torch.equal(a, plain)
    with pytest.raises(BadOption, match="knows no label 'c'"):
        model.sample(2, label="c", guidance=rule)
    with pytest.raises(BadOption, match=r"guidance\.conditional=false"):
        model.sample(2, label="a", guidance={**rule, "conditional": True})
    with pytest.raises(BadOption, match="knows no label"):
        model.sample(2, label="a")


def test_autoguidance_needs_no_label(folders):
    model = load(folders / "model")
    rule = rules(folders)["autoguidance"]
    assert not torch.equal(model.sample(2, guidance=rule).tensor, model.sample(2).tensor)


def test_away_from_the_same_model_nothing_changes(folders):
    model = load(folders / "model")
    same = {"name": "autoguidance", "scale": 3.0, "weak": str(folders / "model")}
    torch.testing.assert_close(model.sample(4, label="a", guidance=same).tensor, model.sample(4, label="a").tensor)


WRONG = {
    "another process": (lambda folder: make(process="linear").save(folder), "must have learned the same process"),
    "other labels": (lambda folder: make(labels=("a", "c")).save(folder), "knows the labels a, c, and the model a, b"),
    "another shape": (
        lambda folder: make(shape=(3,)).save(folder),
        r"data of shape \(3,\), and the model makes \(2,\)",
    ),
    "another codec": (lambda folder: make(codec=IdentityCodec((1.0,), (2.0,))).save(folder), "works in another space"),
    "nothing": (lambda folder: None, "there is no model"),
    "a classifier": (lambda folder: write_classifier(folder, judge(make()), make().blueprint), "holds a classifier"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_weaker_model_that_does_not_fit_is_refused_in_one_line(folders, case):
    make_it, words = WRONG[case]
    make_it(folders / "wrong")
    with pytest.raises((IncompatibleParts, ModelFolderError), match=rf"^guidance\.weak: .*{words}"):
        load(folders / "model").sample(
            1, guidance={"name": "autoguidance", "scale": 2.0, "weak": str(folders / "wrong")}
        )


def test_a_classifier_that_does_not_fit_is_refused_in_one_line(folders):
    model = load(folders / "model")
    other = make(labels=("x", "y"))
    write_classifier(folders / "labels", judge(other, ("x", "y")), other.blueprint)
    write_classifier(folders / "space", judge(model), make(codec=IdentityCodec((1.0,), (2.0,))).blueprint)
    write_classifier(folders / "shape", judge(make(shape=(3,))), make(shape=(3,)).blueprint)
    for name, words in (
        ("labels", "knows the labels x, y"),
        ("space", "another space"),
        ("shape", "data of shape"),
        ("weak", "is no classifier of noisy data"),
        ("nothing", "there is no model"),
    ):
        rule = {"name": "classifier", "scale": 2.0, "classifier": str(folders / name)}
        with pytest.raises((IncompatibleParts, ModelFolderError), match=rf"^guidance\.classifier: .*{words}"):
            model.sample(1, label="a", guidance=rule)
    with pytest.raises(ModelFolderError, match="holds a classifier, which makes no samples by itself"):
        load(folders / "judge")


def test_a_network_in_memory_cannot_be_named_by_a_recipe(folders):
    with pytest.raises(BadOption, match=r"guidance\.weak: .*give its folder"):
        load(folders / "model").sample(1, guidance=AutoGuidance(make(seed=1).denoiser, 2.0))


def test_a_damaged_classifier_is_refused(folders):
    (weights,) = (folders / "judge").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(ModelFolderError, match="checksum"):
        read_classifier(folders / "judge")


def test_the_name_of_a_space_is_that_of_its_meaning():
    assert space_of(IdentityCodec((1.0,), (2.0,))) == space_of(IdentityCodec((1.0,), (2.0,)))
    assert space_of(IdentityCodec((1.0,), (2.0,))) != space_of(IdentityCodec((1.0,), (2.5,)))


def test_a_guided_denoiser_by_hand_takes_a_network():
    schedule = schedules.build("cosine")
    oracle = GaussianMixtureOracle(torch.zeros(1, 2), torch.ones(1), torch.ones(1), schedule)
    x, t = torch.randn(3, 2), torch.tensor(0.4, dtype=torch.float64)
    weak = make(seed=1).denoiser
    with torch.no_grad():
        expected = weak(x, t) + 2 * (oracle(x, t) - weak(x, t))
        torch.testing.assert_close(Guided(oracle, AutoGuidance(weak, 2.0))(x, t), expected)


@pytest.mark.parametrize("place", ["model", "run", "notes"])
def test_a_classifier_takes_the_place_of_nothing_but_a_classifier(folders, place):
    (folders / "run" / "model").mkdir(parents=True)
    (folders / "notes").mkdir()
    (folders / "notes" / "read.me").write_text("mine")
    before = {file: file.read_bytes() for file in folders.rglob("*") if file.is_file()}
    with pytest.raises(BadOption, match="holds something that is no classifier"):
        learn_classifier(load(folders / "model"), folders / place, ClassifierSettings(steps=1), data="moons")
    assert {file: file.read_bytes() for file in folders.rglob("*") if file.is_file()} == before
    check_place(folders / "judge")
    check_place(folders / "new")


class Remembering(GaussianMixtureOracle):
    """An oracle that notes what it is asked to remember."""

    def remember(self, cond):
        return {**cond, f"context@{id(self)}": torch.zeros(len(cond["label"]))}


def test_what_a_weaker_model_makes_of_a_prompt_is_made_once_too():
    strong, weak = (
        Remembering(torch.zeros(2, 1), torch.ones(2), torch.ones(2), schedules.build("cosine"), (0, 1))
        for _ in range(2)
    )
    told = Guided(strong, AutoGuidance(weak, 2.0)).remember({"label": torch.tensor([0, 1])})
    assert set(told) == {"label", f"context@{id(strong)}", f"context@{id(weak)}"}


def test_a_weaker_model_that_is_told_other_things_is_refused(folders):
    helps = load(folders / "model")._helps
    helps.denoiser.network.condition_keys += ("pooled",)
    with pytest.raises(IncompatibleParts, match="its network is told label, and the model's label, pooled"):
        helps.pinned(AutoGuidance(str(folders / "weak"), 2.0))
