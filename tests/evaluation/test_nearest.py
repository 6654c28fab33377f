import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from unnoise.data.digits import DigitsDataset
from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation import nearest as module
from unnoise.evaluation.nearest import distances_to, nearest


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def truth(x, data, k):
    """From differences, in double precision."""
    rows = (x.double().reshape(len(x), 1, -1) - data.double().reshape(1, len(data), -1)).square().sum(2).sqrt()
    return rows.topk(k, largest=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 2, 64, 65, 300])
def test_neighbours_are_those_of_scikit_learn(width, dtype):
    x, data = draw(0, 90, width).to(dtype), draw(1, 400, width).to(dtype)
    found = nearest(x, data, 3)
    judge = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(data.double())
    distances, indices = judge.kneighbors(x.double())
    torch.testing.assert_close(found.distances, torch.from_numpy(distances), rtol=1e-12, atol=0)
    assert torch.equal(found.indices, torch.from_numpy(indices))


def test_on_real_digits_the_neighbours_are_those_of_scikit_learn():
    x = DigitsDataset().load().x
    rows = x.flatten(1).double()
    distances, _ = NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(rows).kneighbors(rows)
    found = nearest(x, x, 3, exclude_self=True)
    torch.testing.assert_close(found.distances, torch.from_numpy(distances[:, 1:]), rtol=1e-12, atol=0)
    assert not (found.indices == torch.arange(len(x))[:, None]).any()


def test_distances_near_zero_keep_all_their_digits():
    # In single precision, and in the products of double precision, such distances are nothing but rounding.
    data = 1000 + draw(0, 300, 200)
    x = data[:50] + 1e-9 * draw(1, 50, 200)
    found = nearest(x, data, 1)
    assert torch.equal(found.indices[:, 0], torch.arange(50))
    torch.testing.assert_close(found.distances[:, 0], (x - data[:50]).norm(dim=1), rtol=1e-13, atol=0)


def test_where_single_precision_cannot_tell_double_precision_does():
    centres = 100 * draw(0, 4, 80)
    data = centres.repeat_interleave(40, 0) + 1e-4 * draw(1, 160, 80)
    x = centres.repeat_interleave(5, 0) + 1e-4 * draw(2, 20, 80)
    found, true = nearest(x, data, 3), truth(x, data, 3)
    assert torch.equal(found.indices, true.indices)
    torch.testing.assert_close(found.distances, true.values, rtol=1e-12, atol=0)


def test_blocks_change_nothing(monkeypatch):
    x, data = draw(0, 50, 70), draw(1, 130, 70)
    whole, told = nearest(x, data, 5), []
    monkeypatch.setattr(module, "_BLOCK", 70 * 8)
    parts = nearest(x, data, 5, progress=lambda done, of: told.append((done, of)))
    assert torch.equal(parts.indices, whole.indices)
    assert torch.equal(parts.distances, whole.distances)
    assert told == [(min(i, 130), 130) for i in range(8, 137, 8)]
    assert torch.equal(
        nearest(data[20:60], data, 5, torch.arange(20, 60)).indices, nearest(data, data, 5, True)[1][20:60]
    )


def test_low_precision_of_products_changes_nothing():
    x, data = draw(0, 20, 100).float(), draw(1, 60, 100).float()
    whole = nearest(x, data, 3)
    torch.set_float32_matmul_precision("medium")
    try:
        low = nearest(x, data, 3)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(low.distances, whole.distances)


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**80])
def test_tiny_and_huge_units_change_nothing(scale):
    x, data = draw(0, 20, 100), draw(1, 60, 100)
    assert torch.equal(nearest(x * scale, data * scale, 3).distances, nearest(x, data, 3).distances * scale)


def test_pictures_of_whole_numbers_are_taken_as_they_are():
    x = DigitsDataset().load().x[:100]
    assert x.dtype == torch.uint8
    assert torch.equal(nearest(x, x, 4).distances, nearest(x.double(), x.double(), 4).distances)


def test_all_rows_can_be_asked_for():
    x, data = draw(0, 6, 70), draw(1, 9, 70)
    assert nearest(x, data, 9).indices.sort(1).values.tolist() == [list(range(9))] * 6
    assert nearest(data, data, 8, exclude_self=True).distances.min() > 0


def test_distances_to_rows_by_name():
    x, data = draw(0, 6, 5), draw(1, 9, 5)
    found = nearest(x, data, 4)
    torch.testing.assert_close(distances_to(x, data, found.indices), found.distances, rtol=1e-15, atol=0)
    rows = torch.tensor([3, 3])
    torch.testing.assert_close(
        distances_to(x, data, found.indices[rows], rows), found.distances[rows], rtol=1e-15, atol=0
    )


def test_what_cannot_be_searched_is_named():
    x = draw(0, 5, 3)
    with pytest.raises(ShapeError, match="rows of one length"):
        nearest(x, draw(0, 5, 4))
    with pytest.raises(ShapeError, match="at least one row"):
        nearest(x, torch.zeros(0, 3))
    with pytest.raises(BadOption, match="k: must be from 1 to 4"):
        nearest(x, x, 5, exclude_self=True)
    with pytest.raises(ShapeError, match="expected the rows of the data that x is"):
        nearest(x[:3], x, 2, exclude_self=True)
    bad = x.clone()
    bad[[1, 3], 0] = torch.tensor([float("nan"), float("inf")], dtype=torch.float64)
    with pytest.raises(DataError, match="2 of 5 rows of x"):
        nearest(bad, x, 2)
    with pytest.raises(DataError, match="1 of 3 rows of data"):
        nearest(x, bad[:3], 2)
