"""Decoded pictures are kept, found again, and never trusted when something changed."""

import os

import numpy as np
import pytest
import torch

from unnoise.data.folder import FolderDataset
from unnoise.errors import BadOption


def load(folder, **options):
    return FolderDataset(str(folder), **options).load()


def test_a_second_load_decodes_nothing(tmp_path, pictures):
    pictures(tmp_path, 3)
    first = load(tmp_path)
    path = tmp_path / "1.png"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = load(tmp_path)
    assert not second.skipped
    assert torch.equal(first.x, second.x)
    assert len(load(tmp_path, cache=False)) == 2


def test_a_changed_file_and_other_options_are_decoded_afresh(tmp_path, pictures, save):
    pictures(tmp_path, 2)
    load(tmp_path)
    path = save(tmp_path / "1.png", np.zeros((8, 8, 3), np.uint8))
    os.utime(path, ns=(0, 0))
    assert (load(tmp_path).x[1] == 0).all()
    assert load(tmp_path, size=4).spec.shape[1:] == (4, 4)


def test_samples_from_the_cache_can_be_written_to_without_harm(tmp_path, pictures):
    pictures(tmp_path, 2)
    first = load(tmp_path)
    before = first.x.clone()
    first.x.zero_()
    assert torch.equal(load(tmp_path).x, before)


def test_a_damaged_cache_is_made_again(tmp_path, pictures, cache_dir):
    pictures(tmp_path, 2)
    before = load(tmp_path).x.clone()
    for file in cache_dir.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:150])
    assert torch.equal(load(tmp_path).x, before)
    assert sorted(file.suffix for file in cache_dir.iterdir()) == [".json", ".npy"]


def test_pixels_that_were_not_used_for_longest_make_room_for_new_ones(tmp_path, pictures, cache_dir, monkeypatch):
    for name in "abc":
        pictures(tmp_path / name, 4)  # 768 bytes of pixels, and 128 before them
    monkeypatch.setenv("UNNOISE_CACHE_LIMIT", "2.3e-6")
    known = {}
    for age, name in enumerate("ab"):
        before = set(cache_dir.glob("*.npy"))
        load(tmp_path / name)
        (known[name],) = set(cache_dir.glob("*.npy")) - before
        os.utime(known[name], (age, age))
    load(tmp_path / "a")  # used again, so that b is the older one now
    load(tmp_path / "c")
    assert known["a"].is_file()
    assert not known["b"].is_file()
    assert len(list(cache_dir.glob("*.npy"))) == 2
    monkeypatch.setenv("UNNOISE_CACHE_LIMIT", "much")
    with pytest.raises(BadOption, match="UNNOISE_CACHE_LIMIT: expected a number of GB, got 'much'"):
        load(tmp_path / "b")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, pictures, monkeypatch):
    pixels = pictures(tmp_path, 2)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "0.png" / "cache"))
    np.testing.assert_array_equal(load(tmp_path).x.numpy(), pixels.transpose(0, 3, 1, 2))


def test_the_cache_follows_the_usual_places(tmp_path, pictures, monkeypatch):
    pictures(tmp_path / "pictures", 2)
    monkeypatch.delenv("UNNOISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load(tmp_path / "pictures")
    assert len(list((tmp_path / "xdg" / "unnoise").glob("*.npy"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load(tmp_path / "pictures")
    assert len(list((tmp_path / "home" / ".cache" / "unnoise").glob("*.npy"))) == 1
