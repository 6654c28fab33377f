"""Fine-tuning and adapters, used as the help says, and misused."""

import numpy as np
import pytest

from unnoise.model import Model
from unnoise.samples import read_recipe

TINY = (
    "training.steps=3", "training.checkpoint_every=3", "training.sample_every=0", "training.validation_size=16",
    "training.validate_every=3", "training.batch_size=8", "training.warmup=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model, and what adapters learned beside it."""
    import unnoise

    folder = tmp_path_factory.mktemp("lora")
    more = dict(option.replace(".", "__", 1).split("=") for option in TINY)
    unnoise.train("digits", folder / "base", progress=False, network__width=8, **more)
    settings = {"model": str(folder / "base"), "lora": {"rank": 2}}
    unnoise.train("digits", folder / "cats", progress=False, start=settings, **{**more, "training__lr": 1e-2})
    return folder


def test_train_from_a_model_with_adapters(unnoise, folders, tmp_path):
    args = (
        "train",
        "images",
        "--data",
        "digits",
        "--from",
        folders / "base",
        "--lora",
        4,
        "--out",
        tmp_path / "run",
        *TINY,
    )
    dry = unnoise(*args, "--dry-run")
    assert dry.code == 0, dry
    assert "weights learn, in adapters beside the" in dry.out
    said = unnoise(*args, "start.lora.layers=*.project_in,middle.*")
    assert said.code == 0, said
    assert "weights learn, in adapters beside the" in said.err
    assert (tmp_path / "run" / "model" / "lora.safetensors").is_file()
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "- middle.*" in text
    assert "rank: 4" in text
    again = unnoise(*args, "start.lora.layers=*.project_in,middle.*")
    assert "nothing to do" in again.err


def test_samples_of_a_model_with_adapters_can_be_made_again(unnoise, refused, folders, tmp_path):
    args = ("sample", folders / "base", "-n", 2, "--steps", 2)
    assert (
        unnoise(*args, "--lora", f"{folders / 'cats'}:0.5", "--lora", folders / "cats", "-o", tmp_path / "x.png").code
        == 0
    )
    assert unnoise(*args, "-o", tmp_path / "plain.png").code == 0
    assert (tmp_path / "x.png").read_bytes() != (tmp_path / "plain.png").read_bytes()
    loras = read_recipe(tmp_path / "x.png")["model"]["loras"]
    assert [each["strength"] for each in loras] == [0.5, 1.0]
    assert unnoise("replay", tmp_path / "x.png").code == 0
    assert (tmp_path / "x-replay.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    assert "there is no adapter at" in refused(*args, "--lora", tmp_path / "none:0.8", "-o", tmp_path / "y.png")
    assert "no lora.safetensors in" in refused(*args, "--lora", folders / "base", "-o", tmp_path / "y.png")
    assert not (tmp_path / "y.png").exists()


def test_merge_writes_a_model(unnoise, refused, folders, tmp_path):
    said = unnoise("lora", "merge", folders / "base", folders / "cats", "-o", tmp_path / "m", "--strength", 0.8)
    assert said.code == 0, said
    expected = Model.load(folders / "base").with_lora(folders / "cats", 0.8)
    assert Model.load(tmp_path / "m").weights_hash == expected.weights_hash
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("precious")
    line = refused("lora", "merge", folders / "base", folders / "cats", "-o", tmp_path / "thesis")
    assert "is not a model folder" in line
    assert "no model at" in refused("lora", "merge", tmp_path, folders / "cats", "-o", tmp_path / "n")


def test_extract_writes_an_adapter(unnoise, refused, folders, tmp_path):
    file = tmp_path / "x.safetensors"
    said = unnoise("lora", "extract", folders / "base", folders / "cats", "--rank", 2, "-o", file)
    assert said.code == 0, said
    assert "layers at rank 2 hold 100.0%" in said.err
    one, other = (Model.load(folders / "base").with_lora(path) for path in (file, folders / "cats"))
    for a, b in zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=2e-6)
    assert "did you mean" in refused("lora", "extract", folders / "base", folders / "cats", "--layers", "mddle.*")


def test_what_a_person_may_do_wrong_when_starting_from_a_model(refused, folders, tmp_path):
    out, base = ("--out", tmp_path / "run"), ("--from", folders / "base")
    assert "give it with --from MODEL" in refused("train", "digits", "--lora", 4, *out)
    assert "start.model: there is no model at" in refused("train", "digits", "--from", tmp_path / "none", *out)
    assert "start.lora.rank: must be at least 1" in refused("train", "digits", *base, "--lora", 0, *out)
    assert "did you mean 'lora'" in refused("train", "digits", *base, "start.loar=3", *out)
    line = refused("train", "digits", *base, "network.width=16", *out)
    assert "embedding.enter.weight is of shape (32, 8) in it and of shape (64, 16) here" in line
    assert "the data is points of shape (2,)" in refused("train", "spiral", *base, *out)
    assert "start.labels" in refused("train", "digits", *base, "start.labels=shrink", *out)
    assert "did you mean 'attention'" in refused(
        "train", "digits", *base, "--lora", 4, "start.lora.layers=attntion", *out
    )
    assert "every weight is frozen" in refused("train", "digits", *base, "start.freeze=[up, '*']", *out)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["merge", "extract"])
def test_every_command_has_help_with_examples(unnoise, command):
    said = unnoise("lora", command, "--help")
    assert said.code == 0
    assert f"unnoise lora {command} runs/" in said.out.replace("\n", " ")
