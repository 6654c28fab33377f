import json

import numpy as np
import pytest
import torch

from unnoise.errors import DataError
from unnoise.evaluation.features.base import Extractor
from unnoise.evaluation.features.store import (
    BLOCK,
    Shelf,
    features_of,
    reference_features,
    reference_moments,
)


class Counting(Extractor):
    """Sums and differences of two coordinates; counts what it is shown, and breaks off after some samples."""

    dim, resize, about = 2, "none", {}

    def __init__(self, name="counting", most=10**9):
        self.hash, self.most, self.shown = name * 4, most, 0

    def __call__(self, x):
        if self.shown + len(x) > self.most:
            raise KeyboardInterrupt
        self.shown += len(x)
        return torch.stack([x.sum(1), x[:, 0] - x[:, 1]], dim=1)


@pytest.fixture
def points(random_data):
    return random_data("points", (2,), 3 * BLOCK + 10)


def test_features_are_worked_out_once_for_each_data_set_and_extractor(points, random_data):
    first, again, other = Counting(), Counting(), Counting("other")
    rows = reference_features(points, first)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, Counting()(points.x))
    assert torch.equal(reference_features(points, again), rows)
    reference_features(points, other)
    reference_features(random_data("points", (2,), 8), again)
    assert (first.shown, again.shown, other.shown) == (len(points), 8, len(points))


def test_another_resize_is_another_extractor(points):
    first, again = Counting(), Counting()
    again.resize = "bicubic to 8 x 8"
    for extractor in (first, again):
        reference_features(points, extractor)
    assert again.shown == len(points)


def test_what_is_changed_in_memory_stays_out_of_the_cache(points):
    rows = reference_features(points, Counting())
    kept = rows.clone()
    rows.zero_()
    assert torch.equal(reference_features(points, Counting()), kept)


def test_work_that_was_broken_off_goes_on_where_it_was(points, cache_dir):
    with pytest.raises(KeyboardInterrupt):
        reference_features(points, Counting(most=2 * BLOCK + 5))
    rest, told = Counting(), []
    rows = reference_features(points, rest, lambda *progress: told.append(progress))
    assert rest.shown == BLOCK + 10
    assert told == [("features of the data", n, len(points)) for n in (3 * BLOCK, len(points))]
    assert torch.equal(rows, Counting()(points.x))
    assert not list((cache_dir / "features").glob("*.part*"))


def test_broken_off_work_that_was_damaged_begins_anew(points):
    with pytest.raises(KeyboardInterrupt):
        reference_features(points, Counting(most=2 * BLOCK + 5))
    part = Shelf.of(points, Counting()).path(".part")
    part.write_bytes(part.read_bytes()[:-5] + b"wrong")
    rest = Counting()
    assert torch.equal(reference_features(points, rest), Counting()(points.x))
    assert rest.shown == len(points)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no json", "other shape"])
def test_features_that_are_not_whole_are_worked_out_again(points, damage):
    rows = reference_features(points, Counting()).clone()
    shelf = Shelf.of(points, Counting())
    file, header = shelf.path(".npy"), shelf.path(".json")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "changed":
        file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    elif damage == "gone":
        file.unlink()
    elif damage == "no json":
        header.write_text("{")
    else:
        np.save(file, np.zeros((3, 2), np.float32))
    again, told = Counting(), []
    assert torch.equal(reference_features(points, again, lambda *progress: told.append(progress)), rows)
    assert again.shown == len(points)
    assert "damaged" in told[0][0]


@pytest.mark.parametrize("name", ["data", "extractor", "resize", "shape", "format"])
def test_a_header_that_names_another_owner_is_refused_by_name(points, name):
    reference_features(points, Counting())
    header = Shelf.of(points, Counting()).path(".json")
    facts = json.loads(header.read_text())
    facts["owner"][name] = "another"
    header.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=f"features of another {name} .'another' and not .*remove it"):
        reference_features(points, Counting())


def test_moments_are_those_of_numpy_and_kept(points):
    points.x.mul_(0.01).add_(300)  # a mean far above the spread
    extractor, again = Counting(), Counting()
    found = reference_moments(points, extractor)
    rows = Counting()(points.x).double().numpy()
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T), rtol=1e-10)
    assert found.n == len(points)
    kept = reference_moments(points, again)
    assert torch.equal(kept.covariance, found.covariance)
    assert again.shown == 0


def test_kept_moments_that_are_damaged_are_made_again_and_those_of_another_refused(points):
    found = reference_moments(points, Counting())
    shelf = Shelf.of(points, Counting())
    file = shelf.path(".moments.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\x00\x00\x00\x00")
    assert torch.equal(reference_moments(points, Counting()).covariance, found.covariance)
    assert file.read_bytes() == whole
    file.write_bytes(whole.replace(b"countingcounting", b"otherxxxotherxxx"))
    with pytest.raises(DataError, match="another extractor"):
        reference_moments(points, Counting())


def test_without_a_disk_features_come_from_memory(points, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "file"))
    assert torch.equal(reference_features(points, Counting()), Counting()(points.x))
    assert reference_moments(points, Counting()).n == len(points)


def test_one_sample_has_no_covariance(random_data):
    with pytest.raises(DataError, match="at least 2"):
        reference_moments(random_data("points", (2,), 1), Counting())


def test_samples_in_memory_need_no_cache(points, cache_dir):
    rows = features_of(points.x, Counting())
    assert torch.equal(rows, Counting()(points.x))
    assert not (cache_dir / "features").exists()
