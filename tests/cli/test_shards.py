"""Shards on the command line: packed, looked at, trained on."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "pictures" / ("cat" if i < 20 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.mark.usefixtures("quick_features")
def test_a_folder_is_packed_looked_at_and_trained_on(unnoise, folder, tmp_path):
    shards = tmp_path / "shards"
    assert "6 shards" in unnoise("pack", folder, "-o", shards, "--size", "16KB").out
    looked = unnoise("data", shards).out
    assert "40 image, shape (3, 8, 8)" in looked
    assert "6 tar shards" in looked
    assert "cat (20), dog (20)" in looked
    tiny = ("network.width=8", "training.steps=2", "training.validation_size=16", "training.sample_every=0")
    for path in (shards, f"{shards}/*.tar"):
        said = unnoise("train", "images", "--data", path, "--out", tmp_path / "run", "data.size=8", "--dry-run")
        assert "40 samples of shape (3, 8, 8), 2 labels" in said.out
    assert unnoise("train", "images", "--data", shards, "--out", tmp_path / "run", "data.size=8", *tiny).code == 0
    evaluated = unnoise("evaluate", tmp_path / "run", "-n", "20", "-o", tmp_path / "judged", "--metrics", "energy")
    assert evaluated.code == 0, evaluated.err


def test_packing_says_which_captions_are_missing(unnoise, folder, tmp_path):
    first, *_ = sorted((folder / "cat").iterdir())
    first.with_suffix(".txt").write_text("a cat")
    said = unnoise("pack", folder, "-o", tmp_path / "shards").err
    assert "note: captions: 39 of 40 images have none, e.g. cat/" in said


def test_a_folder_can_be_streamed(unnoise, folder):
    said = unnoise("data", folder, "--stream").out
    assert "of files, read as they are needed" in said
    assert "cat (20), dog (20)" in said


def test_a_pattern_that_the_shell_has_filled_in_is_told_how_to_be_written(refused, folder, tmp_path):
    names = sorted(str(path) for path in (folder / "cat").iterdir())
    said = refused("train", "images", "--data", *names)
    assert said.endswith("is no option: give --data a folder, or a pattern in quotes: --data 'shards/*.tar'")


def test_bad_shards_and_sizes_are_refused_in_one_line(refused, folder, tmp_path):
    assert "expected a size such as 256MB" in refused("pack", folder, "-o", tmp_path / "out", "--size", "large")
    assert "expected tar or parquet" in refused("pack", folder, "-o", tmp_path / "out", "--format", "zip")
    assert "give it with --data" in refused("train", "images", "--stream")
    (tmp_path / "bad.tar").write_bytes(b"not a tar file" * 100)
    assert "bad.tar cannot be read as tar" in refused("data", tmp_path / "bad.tar")


def test_broken_pictures_are_named_and_left_out_of_the_shards(unnoise, folder, tmp_path):
    (folder / "cat" / "3.png").write_bytes(b"no picture")
    whole = (folder / "dog" / "25.png").read_bytes()
    (folder / "dog" / "25.png").write_bytes(whole[: len(whole) // 2])
    said = unnoise("pack", folder, "-o", tmp_path / "shards")
    assert said.out.startswith("1 shard, ")
    skipped = [line for line in said.err.splitlines() if line.startswith("note: skipped ")]
    assert [line.split(":")[1] for line in skipped] == [" skipped cat/3.png", " skipped dog/25.png"]
    assert "note: 38 of 40 images are packed" in said.err
    looked = unnoise("data", tmp_path / "shards").out
    assert "38 image, shape (3, 8, 8)" in looked
    assert "cat (19), dog (19)" in looked


def test_pictures_of_mixed_sizes_are_told_and_what_was_made_of_them(unnoise, tmp_path, folder):
    assert "sizes" not in unnoise("data", folder).out
    for i, size in enumerate([(16, 16)] * 6 + [(40, 30)] * 3 + [(20, 64)] * 2 + [(33, 32)] * 1):
        path = tmp_path / "odd" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (20 * i, 0, 0)).save(path)
    line = (
        "16 x 16 (6), 40 x 30 (3), 20 x 64 (2) and 1 more size: each was scaled until its smaller side was 16, "
        "and its middle kept"
    )
    assert line in unnoise("data", tmp_path / "odd").out
    unnoise("pack", tmp_path / "odd", "-o", tmp_path / "shards")
    assert line in unnoise("data", tmp_path / "shards").out


def test_a_dry_run_warns_of_few_pictures_as_the_look_at_data_does(unnoise, folder):
    warning = "There are only 40 samples: a model will learn them by heart."
    assert warning in unnoise("data", folder).out
    assert warning in unnoise("train", "images", "--data", folder, "data.size=8", "--dry-run").out


def test_one_picture_that_cannot_be_read_is_one(refused, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.png").write_bytes(b"no picture")
    for command in (["data", tmp_path / "own"], ["pack", tmp_path / "own", "-o", tmp_path / "out"]):
        said = refused(*command)
        assert said.endswith("the only image cannot be read, a.png: cannot identify image file: save it as PNG or JPEG")
