"""The models that come with unnoise: small, found from anywhere, and they heed words as their cards say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unnoise.data.shapes import ShapesDataset
from unnoise.evaluation.scenes.judging import adherence
from unnoise.model import Model
from unnoise.model_folder import folder_beside
from unnoise.recipes.attention import attention_picture
from unnoise.samples import read_recipe
from unnoise.shipped import SHIPPED, folder_of, ready_for


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_small_and_has_a_card(name):
    folder = SHIPPED[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16e6
    tensors = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
    wide = sum(tensor.numel() for tensor in tensors if tensor.dtype == torch.float32)
    assert wide < 0.01 * sum(tensor.numel() for tensor in tensors)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "What it can do" in card
    assert "What it cannot do" in card


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        (None, "ready"),
        ("a large red circle", "ready"),
        ("two small green rings", "ready"),
        ("a red heart", "ready-emoji"),
        ("Rocket!", "ready-emoji"),
    ],
)
def test_a_prompt_is_given_to_who_knows_its_words(prompt, name):
    assert ready_for(prompt) == name


def test_a_red_heart_is_red_and_stands_in_the_middle_on_white(unnoise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert unnoise("sample", "--prompt", "a red heart", "-n", 2, "--steps", 8, "-o", "heart.npz").code == 0
    hearts = torch.from_numpy(np.load("heart.npz")["x"]).float()
    assert hearts.shape == (2, 3, 64, 64)
    red, green, blue = hearts[:, :, 24:40, 24:40].mean((0, 2, 3))
    assert red > 200
    assert max(green, blue) < 110
    assert hearts[:, :, :4, :4].min() > 230
    assert hearts[:, 1, 58:, 28:36].mean() > 150  # its tip ends above the edge


def test_a_prompt_alone_makes_a_picture_anywhere(unnoise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = unnoise("sample", "--prompt", "a red circle", "-n", 1, "--steps", 4, "-o", "circle.png")
    assert said.code == 0, said
    assert "note: no model was given: ready is taken; what no caption had together it guesses at" in said.err
    recipe = read_recipe(tmp_path / "circle.png")
    assert (recipe["model"]["path"], recipe["model"]["hash"]) == ("ready", Model.load().hash)
    assert unnoise("replay", "circle.png", "-o", "again.png").code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "circle.png").read_bytes()


def test_words_that_it_never_saw_and_prompts_too_long_for_it_are_said_with_what_helps(unnoise, tmp_path):
    made = tmp_path / "made.png"
    said = unnoise("sample", "ready", "--prompt", "a zorblax", "-n", 1, "--steps", 1, "-o", made)
    assert said.code == 0, said
    told = "it knows 54 words, such as 'small', 'large', 'there', 'square', 'triangle', 'ring'"
    note = f"note: prompt: no caption that the model learned from has the word 'zorblax'; {told}"
    assert note in " ".join(said.err.split())
    long = " ".join(["a red circle"] * 40)
    said = unnoise("sample", "ready", "--prompt", long, "-n", 1, "--steps", 1, "-o", made)
    assert said.code == 0, said
    most = Model.load().blueprint.text.length
    told = f"note: prompt: 122 tokens are more than the {most} that the encoder reads at once: it is read in"
    assert told in " ".join(said.err.split())
    assert f"make it {122 - most} tokens shorter" in " ".join(said.err.split())


def test_what_each_word_did_is_drawn_into_a_picture(unnoise, refused, tmp_path):
    drawn = tmp_path / "attention.png"
    said = unnoise("draw", "attention", "ready", "--prompt", "a red circle", "--steps", 2, "--seed", 3, "-o", drawn)
    assert said.code == 0, said
    assert said.out.strip().endswith("attention.png")
    expected = attention_picture(Model.load(), "a red circle", steps=2, seed=3)
    with Image.open(drawn) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(expected.convert("RGB")))
        assert picture.width > 2 * picture.height  # the sample, and three words beside it
    told = refused("draw", "attention", "ready", "--prompt", "a red circle", "-o", tmp_path / "attention.txt")
    assert "attention.txt" in told


def test_what_stands_at_the_place_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of("ready") == SHIPPED["ready"]
    (tmp_path / "ready").mkdir()
    assert str(folder_of("ready")) == "ready"


def test_what_is_found_out_about_it_is_kept_here_and_hides_it_from_nobody(unnoise, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(SHIPPED["ready"].iterdir())
    assert unnoise("adherence", "ready", "-n", 2, "--objects", 1, "--steps", 2).code == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adherence"]
    for name in SHIPPED:
        said = refused("tune", name, "--steps", 4)
        assert f"not into that of `{name}`" in said
        assert f"unnoise.load('{name}')" in said
    assert sorted(SHIPPED["ready"].iterdir()) == before
    assert folder_beside("ready", "grid") == folder_beside(None, "grid") == Path("grid")
    assert folder_beside("runs/digits", "grid") == Path("runs/digits/grid")


def test_it_does_what_it_is_told_far_more_often_than_by_chance():
    source = ShapesDataset(split="held_out", most_objects=2, captions="short", one=0.3, alike=0.1)
    prompts = [picture.caption for picture in source.pictures(range(48))]
    made = Model.load().sample(len(prompts), prompt=prompts, steps=10, seed=0)
    shares = adherence(made.tensor, prompts).shares
    # By chance one in eight, in four, and in 48 at most; its card says 99 to 100 %, of more prompts and steps.
    assert shares["colour"].value >= 0.95
    assert shares["relation"].value >= 0.85
    assert shares["everything"].value >= 0.85


def test_several_prompts_are_taken_in_turn(unnoise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = "a large red circle", "a large blue circle"
    asked = [word for prompt in prompts for word in ("--prompt", prompt)]
    assert unnoise("sample", *asked, "-n", 3, "--steps", 8, "-o", "mixed.npz").code == 0
    mixed = np.load("mixed.npz")["x"]
    for i, prompt in enumerate((*prompts, prompts[0])):
        alone = unnoise("sample", "--prompt", prompt, "-n", 1, "--first", i, "--steps", 8, "-o", "alone.npz")
        assert alone.code == 0
        # In another batch it is the same to rounding, which is at most a grey level.
        assert np.abs(np.load("alone.npz")["x"][0].astype(int) - mixed[i]).max() <= 1
    assert unnoise("sample", *asked, "-n", 3, "--steps", 8, "-o", "folder/").code == 0
    files = sorted(Path("folder").glob("*.png"))
    assert len(files) == 3
    for file, picture in zip(files, mixed, strict=True):
        assert read_recipe(file)["prompt"] == [prompts[0], prompts[1], prompts[0]]
        with Image.open(file) as image:
            assert np.abs(np.asarray(image).astype(int) - picture.transpose(1, 2, 0)).max() <= 1
