"""The commands, used as their help says."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from unnoise.pictures import style
from unnoise.recipes.catalogue import catalogue
from unnoise.samples import read_recipe

TINY = (
    "training.steps=6", "training.checkpoint_every=3", "training.sample_every=6", "training.validation_size=16",
    "training.validate_every=3", "training.log_every=2", "network.width=8", "training.batch_size=8",
)  # fmt: skip


@pytest.fixture
def digits(trained):
    """A tiny run on the digits."""
    return trained("digits", "digits", *TINY)


def test_a_run_folder_holds_all_that_it_promises(digits):
    names = {path.relative_to(digits).as_posix() for path in digits.rglob("*") if path.is_file()}
    assert {"recipe.yaml", "metrics.jsonl", "model/model.yaml", "samples/000000006.png", "loss.png"} <= names
    assert {"checkpoints/000000003.safetensors", "checkpoints/000000006.safetensors"} <= names
    lines = [json.loads(line) for line in (digits / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    validated = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in validated] == [0, 3, 6]
    assert all(line["bayes_floor"] < line["validation_loss"] for line in validated)


def test_training_a_finished_run_again_changes_nothing(unnoise, digits):
    before = {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}
    said = unnoise("train", "digits", "--out", digits, *TINY)
    assert said.code == 0
    assert "nothing to do" in said.err
    assert {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()} == before


def test_print_config_is_a_recipe_that_gives_itself(unnoise, tmp_path):
    said = unnoise("train", "digits", "--print-config", "training.lr=1e-4", "process.name=cosine", "denoiser.name=v")
    assert said.code == 0
    (tmp_path / "mine.yaml").write_text(said.out)
    assert "num_steps: 1000" in said.out
    assert unnoise("train", tmp_path / "mine.yaml", "--print-config").out == said.out


def test_a_dry_run_tells_and_writes_nothing(unnoise, tmp_path):
    said = unnoise("train", "digits", "--dry-run", "--out", tmp_path / "run")
    assert said.code == 0
    assert "1,797 samples of shape (1, 8, 8), 10 labels" in said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.gif", "x.apng", "x.npz", "x.safetensors"])
def test_every_file_of_samples_carries_its_recipe_and_can_be_made_again(unnoise, digits, tmp_path, name):
    file = tmp_path / name
    args = ("-n", 6, "--label", 3, "--guidance", 2.5, "--sampler", "ddim", "--steps", 3, "--seed", 7, "sampler.eta=0.5")
    said = unnoise("sample", digits, *args, "-o", file)
    assert said.code == 0, said
    assert said.out.strip() == str(file)
    recipe = read_recipe(file)
    assert recipe["sampler"] == {"name": "ddim", "eta": 0.5}
    assert (recipe["n"], recipe["label"], recipe["seed"], recipe["steps"]) == (6, "3", 7, 3)
    assert recipe["guidance"]["scale"] == 2.5
    assert len(recipe["model"]["hash"]) == 64
    again = unnoise("replay", file)
    assert again.code == 0, again
    assert (tmp_path / f"x-replay{file.suffix}").read_bytes() == file.read_bytes()


def test_one_file_of_a_folder_can_be_made_again_alone(unnoise, digits, tmp_path):
    args = ("-n", 5, "--label", "all", "--steps", 2, "--batch-size", 2, "--blend", "9:0.4")
    said = unnoise("sample", digits, *args, "-o", tmp_path / "out")
    assert said.code == 0, said
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(5)]
    with Image.open(files[0]) as image:
        assert image.size == (8, 8)
    assert unnoise("replay", files[3], "-o", tmp_path / "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == files[3].read_bytes()


def test_a_folder_of_samples_is_gone_on_with(unnoise, refused, digits, tmp_path):
    asked = ("sample", digits, "-n", 6, "--steps", 1, "--batch-size", 2, "-o", tmp_path / "out")
    assert "6 files in" in unnoise(*asked).out
    whole = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "000003.png").unlink()
    assert "6 files in" in (said := unnoise(*asked).out)
    assert "4 of them from before" in said
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == whole
    assert "add --on ray" in refused(*asked, "--workers", 2)
    assert "fills a folder" in refused(*asked[:-1], tmp_path / "x.png", "--on", "ray")
    assert "did you mean 'ray'" in refused(*asked, "--on", "rya")


def test_replay_refuses_another_model(unnoise, refused, digits, tmp_path):
    assert unnoise("sample", digits, "-n", 1, "--steps", 1, "-o", tmp_path / "x.png").code == 0
    other = tmp_path / "other"
    assert unnoise("train", "digits", "--out", other, *TINY, "--seed", 5).code == 0
    assert "another model" in refused("replay", tmp_path / "x.png", "--model", other)


def test_replay_refuses_a_file_without_a_recipe(refused, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    assert "carries no unnoise recipe" in refused("replay", tmp_path / "x.png")
    assert "there is no file" in refused("replay", tmp_path / "y.png")


def test_sampling_is_the_same_in_any_batch(unnoise, digits, tmp_path):
    for size, name in ((1, "a"), (3, "b"), (6, "c")):
        args = ("-n", 6, "--steps", 3, "--sampler", "ancestral", "--batch-size", size)
        assert unnoise("sample", digits, *args, "-o", tmp_path / f"{name}.npz").code == 0
    import numpy as np

    a, b, c = (np.load(tmp_path / f"{name}.npz")["x"].astype(int) for name in "abc")
    assert abs(a - b).max() <= 1
    assert abs(a - c).max() <= 1


def test_info_tells_what_a_model_is_and_how_a_file_was_made(unnoise, digits, tmp_path):
    said = unnoise("info", digits)
    assert said.code == 0
    assert "image of shape (1, 8, 8)" in said.out
    assert "unet" in said.out
    facts = json.loads(unnoise("info", digits, "--json").out)
    assert facts["trained"]["steps"] == 6
    assert unnoise("sample", digits, "-n", 1, "--steps", 1, "-o", tmp_path / "x.png").code == 0
    assert json.loads(unnoise("info", tmp_path / "x.png").out)["model"]["hash"] == facts["hash"]


def test_data_looks_before_training(unnoise):
    said = unnoise("data", "digits")
    assert said.code == 0
    assert "1,797 image" in said.out
    assert "0 (178)" in said.out
    assert json.loads(unnoise("data", "digits", "--json").out)["count"] == 1797


def test_lists_say_in_words_what_a_part_is():
    for kind, entries in catalogue().items():
        for entry in entries:
            assert not re.search(r"[\\{}]|\bhat|sqrt|nabla|varepsilon|See the module|^[a-z_]+ = ", entry.summary), (
                kind,
                entry,
            )


def test_list_names_every_part(unnoise):
    said = unnoise("list", "samplers")
    assert said.code == 0
    assert {line.split()[0] for line in said.out.splitlines()} >= {
        "ddpm",
        "ddim",
        "euler",
        "heun",
        "dpmpp_2m",
        "ancestral",
    }
    assert "recipes" in unnoise("list").out
    assert "eta" in unnoise("list", "samplers", "--options").out
    recipes = {line.split()[0] for line in unnoise("list", "recipes").out.splitlines()}
    assert recipes >= {"spiral", "two-moons-labels", "digits", "fashion-mnist", "cifar10", "images"}


@pytest.mark.parametrize("command", ["train", "sample", "replay", "info", "data", "list", "demo", "draw"])
def test_every_command_has_help_with_examples(unnoise, command):
    said = unnoise(command, "--help")
    assert said.code == 0
    assert f"unnoise {command}" in said.out.replace("\n", " ")


def test_a_file_is_made_again_byte_for_byte_where_the_model_has_moved(unnoise, refused, digits, tmp_path, monkeypatch):
    assert unnoise("sample", digits, "-n", 2, "--steps", 2, "-o", tmp_path / "x.png").code == 0
    moved = digits.rename(digits.with_name("moved"))
    try:
        assert "give it with --model" in refused("replay", tmp_path / "x.png")
        assert unnoise("replay", tmp_path / "x.png", "--model", moved, "-o", tmp_path / "y.png").code == 0
    finally:
        moved.rename(digits)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_the_learning_rate_of_a_recipe_is_drawn_with_a_colour_for_each_law(unnoise, tmp_path):
    colours = [np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) for text in style.PALETTE[:3]]
    for k, laws in enumerate(((), ("--law", "cosine", "--law", "trapezoid"))):
        said = unnoise("draw", "rate", "digits", "training.warmup=50", *laws, "-o", tmp_path / f"{k}.png")
        assert said.code == 0, said
        with Image.open(tmp_path / f"{k}.png") as picture:
            pixels = np.asarray(picture).astype(int)
        shown = [int((np.abs(pixels - colour).max(-1) < 12).sum()) > 50 for colour in colours]
        assert shown == [True, k == 1, False]
    assert unnoise("draw", "rate", "digits", "--law", "cosin", "-o", tmp_path / "x.png").code == 2
