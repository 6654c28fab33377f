"""CLIP, trained here: it finds captions, goes on where it stopped, is saved, and lends its words to a diffusion model."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.cli.main import app
from unnoise.errors import BadOption, DataError, IncompatibleParts, ModelFolderError
from unnoise.model import Model
from unnoise.recipes.clip_folder import load_clip
from unnoise.recipes.metrics import read_metrics
from unnoise.recipes.recipe import load_any_recipe, load_recipe
from unnoise.recipes.retrieving import judge_clip
from unnoise.recipes.run import Run

COLOURS = {
    "red": (220, 20, 20), "blue": (20, 20, 220), "green": (20, 160, 20), "black": (0, 0, 0), "yellow": (230, 220, 20),
}  # fmt: skip
PLACES = {"left": np.s_[:, :4], "right": np.s_[:, 4:], "top": np.s_[:4], "bottom": np.s_[4:]}
SMALL = {
    "kind": "clip",
    "data": {"name": "folder", "size": 8, "cache": False},
    "text": {"encoder": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 12}},
    "pictures": {"width": 8, "multipliers": [1, 2], "blocks": 1},
    "dim": 16,
    "training": {
        "steps": 50, "batch_size": 20, "lr": 1e-2, "warmup": 0, "validate_every": 20, "sample_every": 0, "ema": 0.9,
        "checkpoint_every": 100, "validation_size": 64, "validation_share": 0.2,
    },
    "machine": {"precision": "fp32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Halves of squares in five colours, in a folder for each colour, with captions beside them."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(120):
        colour, place = list(COLOURS)[i % 5], list(PLACES)[i // 5 % 4]
        pixels = np.full((8, 8, 3), 255.0)
        pixels[PLACES[place]] = COLOURS[colour]
        (folder / colour).mkdir(exist_ok=True)
        file = folder / colour / f"{i}.png"
        Image.fromarray(np.clip(pixels + rng.normal(0, 9, pixels.shape), 0, 255).astype(np.uint8)).save(file)
        file.with_suffix(".txt").write_text(f"{colour} {place}")
    return folder


def recipe(pictures, **more):
    return load_any_recipe({**SMALL, "data": {**SMALL["data"], "path": str(pictures)}}, **more)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("runs") / "clip"
    for _ in Run(recipe(pictures), folder).events():
        pass
    return folder


def test_pictures_that_were_held_out_find_their_captions(run_folder):
    first, *_, last = [line for line in read_metrics(run_folder / "metrics.jsonl") if "validation_loss" in line]
    assert last["validation_loss"] < 0.6 * first["validation_loss"]
    found = judge_clip(run_folder, template="{} left")
    assert found.captions.first.value > 5 * found.captions.chance
    assert found.captions.among > 8
    assert found.labels is not None
    assert found.labels.value > 1.5 * found.chance
    assert [name for name, _ in found.lines()] == ["picture -> caption", "caption -> picture", "picture -> label"]
    assert any("have the caption of another" in note for note in found.notes)


def test_the_command_tells_what_is_found(run_folder):
    done = CliRunner().invoke(app, ["retrieve", str(run_folder), "--among", "10"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "->" in line]
    assert [line.split("  ")[0] for line in lines] == ["picture -> caption", "caption -> picture", "picture -> label"]
    assert "first of 10 (" in lines[0]
    assert "chance 20.0%" in lines[2]


def test_captions_that_are_longer_than_it_reads_are_said(run_folder, tmp_path):
    for i, caption in enumerate(["red left", "blue " * 11, "green top " * 10]):
        Image.new("RGB", (8, 8), (90 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(caption)
    told = "captions: 2 of 3 are longer than the 12 tokens that CLIP reads at once (one has 22), and what comes after is not read"
    remedy = "shorten such captions, or take a CLIP that reads more"
    assert judge_clip(run_folder, str(tmp_path), among=3).notes == [f"{told}: {remedy}"]
    done = CliRunner().invoke(app, ["retrieve", str(run_folder), "--data", str(tmp_path), "--among", "3"])
    assert done.exit_code == 0, done.output
    assert f"note: {told}: {remedy}" in done.output.replace("\n", " ")
    (tmp_path / "2.txt").write_text("green top")
    (tmp_path / "1.txt").write_text("blue " * 10)
    assert judge_clip(run_folder, str(tmp_path), among=3).notes == []


def test_it_is_saved_and_read_again_and_everything_has_length_one(run_folder, tmp_path):
    clip = load_clip(run_folder)
    again = load_clip(clip.save(tmp_path / "there"))
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    texts = ["red left", "a yellow one at the top"]
    assert torch.equal(clip.look(x), again.look(x))
    assert torch.equal(clip.read(texts), again.read(texts))
    torch.testing.assert_close(clip.look(x).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(clip.read(texts).norm(dim=1), torch.ones(2))
    assert 1 < float(clip.clip.scale.detach()) <= 100


def test_a_run_that_is_stopped_and_goes_on_ends_with_the_same_bytes(pictures, tmp_path):
    more = {"training__steps": 4, "training__checkpoint_every": 2, "training__log_every": 3}
    whole, halves = (
        Run(recipe(pictures, **more), tmp_path / "whole"),
        Run(recipe(pictures, **more), tmp_path / "halves"),
    )
    for _ in whole.events():
        pass
    for _ in halves.events(lambda: halves.state.step == 2):
        pass
    again = Run(recipe(pictures, **more), tmp_path / "halves")
    assert again.state.step == 2
    for _ in again.events():
        pass
    one, other = (load_clip(tmp_path / name).clip.state_dict() for name in ("whole", "halves"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("whole", [False, True], ids=["tokens", "tokens and the whole text"])
def test_its_words_serve_a_diffusion_model(run_folder, pictures, tmp_path, monkeypatch, whole):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    clip = load_clip(run_folder)
    sizes = {"width": 8, "multipliers": [1], "blocks": 1, "attention": [0], "heads": 2}
    asked = load_recipe({
        "data": {"name": "folder", "size": 8, "cache": False, "path": str(pictures)}, "process": "flow",
        "denoiser": {"name": "velocity"}, "conditioning": {"text": {"path": str(run_folder)}},
        "network": {"name": "latent_unet", **sizes, "pooled": clip.text.encoder.config.width if whole else 0},
        "training": {"steps": 1, "batch_size": 4, "sample_every": 0, "validation_size": 16}, "machine": {"precision": "fp32"},
    })  # fmt: skip
    for _ in Run(asked, tmp_path / "run").events():
        pass
    model = Model.load(tmp_path / "run")
    assert model.blueprint.text.tokenizer == clip.text.tokenizer
    own = model.blueprint.text.describe()
    assert own == {**clip.text.describe(), "learned": False}
    assert model.sample(1, prompt="red left", steps=2).tensor.shape == (1, 3, 8, 8)
    told, ids = model.condition(None, 1, "red left"), clip.text.ids(["red left"])
    assert ("pooled" in told) == whole
    if whole:
        with torch.no_grad():
            states = clip.clip.text(ids.clamp(min=0), ids >= 0)
        torch.testing.assert_close(told["pooled"], clip.clip.text.pooled(states, ids >= 0), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused(pictures, run_folder, tmp_path, monkeypatch):
    with pytest.raises(BadOption, match="told from all others: leave it 0"):
        recipe(pictures, machine__micro_batch=4)
    with pytest.raises(BadOption, match="take at least 2"):
        recipe(pictures, training__batch_size=1)
    with monkeypatch.context() as patched:
        patched.setattr("unnoise.training.execution.free_bytes", lambda device, sharers: 2_000_000)
        with pytest.raises(BadOption, match=r"fits is \d+; add training\.batch_size=\d+$"):
            Run(recipe(pictures, training__batch_size=4000), tmp_path / "large")
    with pytest.raises(IncompatibleParts, match="the tower looks at pictures, and the data is points"):
        Run(load_any_recipe({**SMALL, "data": "moons"}), tmp_path / "points")
    with pytest.raises(DataError, match=r"^text: the data has no captions"):
        Run(load_any_recipe({**SMALL, "data": "digits"}), tmp_path / "digits")
    with pytest.raises(BadOption, match=r"^text\.length: the encoder at .* reads at most 12 tokens, not 13$"):
        Run(recipe(pictures, text={"path": str(run_folder), "length": 13}), tmp_path / "long")
    with pytest.raises(ModelFolderError, match="there is no model at"):
        load_clip(tmp_path / "nowhere")
    with pytest.raises(BadOption, match=r"expected a place {} for the name"):
        judge_clip(run_folder, template="a picture")
    with pytest.raises(ModelFolderError, match="makes no samples by itself"):
        Model.load(run_folder)
