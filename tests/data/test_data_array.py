"""NumPy files: which shapes are images, points and arrays, and what is refused."""

import numpy as np
import pytest
import torch

from unnoise.data.array import ArrayDataset
from unnoise.errors import DataError


def load(path):
    return ArrayDataset(str(path)).load()


def saved(path, values, **others):
    if others or path.suffix == ".npz":
        np.savez(path, x=values, **others)
    else:
        np.save(path, values)
    return path


@pytest.mark.parametrize(
    ("dtype", "shape", "kind", "expected"),
    [
        (np.float64, (6, 3), "points", (3,)),
        (np.uint8, (6, 3), "points", (3,)),
        (np.int32, (6,), "points", (1,)),
        (np.uint8, (6, 8, 9), "image", (1, 8, 9)),
        (np.uint8, (6, 8, 9, 3), "image", (3, 8, 9)),
        (np.uint8, (6, 4, 8, 9), "image", (4, 8, 9)),
        (np.uint8, (6, 3, 8, 3), "image", (3, 8, 3)),
        (np.uint8, (6, 2, 8, 9), "array", (2, 8, 9)),
        (np.float32, (6, 3, 8, 9), "array", (3, 8, 9)),
        (np.float16, (6, 2, 16), "array", (2, 16)),
        (">f4", (6, 1, 2, 3, 4), "array", (1, 2, 3, 4)),
        (bool, (6, 8, 9), "array", (8, 9)),
    ],
)
def test_the_type_and_the_shape_say_what_a_sample_is(tmp_path, dtype, shape, kind, expected):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = load(saved(tmp_path / "a.npy", values))
    assert (data.spec.kind, data.spec.shape) == (kind, expected)
    assert data.x.dtype == (torch.uint8 if kind == "image" else torch.float32)
    assert data.x.shape == (6, *expected)
    data.check()


def test_channels_at_the_end_are_brought_to_the_front(tmp_path, rng):
    values = rng.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load(saved(tmp_path / "a.npy", values)).x.numpy(), values.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("key", ["labels", "y"])
def test_labels_are_numbered_by_their_names(tmp_path, key):
    data = load(saved(tmp_path / "a.npz", np.eye(3), **{key: np.array([20, 3, 20])}))
    assert data.labels.tolist() == [1, 0, 1]
    assert data.spec.class_names == ("3", "20")
    words = load(saved(tmp_path / "b.npz", np.eye(3), **{key: np.array(["b", "a", "b"])}))
    assert words.spec.class_names == ("a", "b")
    assert words.labels.tolist() == [1, 0, 1]


def test_the_only_array_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.eye(3), labels=np.arange(3))
    assert load(tmp_path / "a.npz").x.tolist() == np.eye(3).tolist()


def test_the_file_stays_as_it_is_when_samples_are_written_to(tmp_path):
    path = saved(tmp_path / "a.npy", np.ones((2, 3), np.float32))
    load(path).x.zero_()
    assert load(path).x.sum() == 6


def test_python_objects_are_never_read(tmp_path):
    objects = np.array([{}, None], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=objects)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="holds Python objects, which are never read"):
            load(tmp_path / name)


@pytest.mark.parametrize("values", [np.array(["a", "b"]), np.ones((2, 2), complex), np.array(1.0)])
def test_what_holds_no_numbers_by_sample_is_refused(tmp_path, values):
    with pytest.raises(DataError, match=r"expected numbers of shape \(N, ...\)"):
        load(saved(tmp_path / "a.npy", values))


def test_labels_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected labels of shape \(3,\), one for each sample, got \(2,\)"):
        load(saved(tmp_path / "a.npz", np.eye(3), labels=np.arange(2)))
    with pytest.raises(DataError, match="expected whole numbers or words as labels, got float64"):
        load(saved(tmp_path / "a.npz", np.eye(3), labels=np.ones(3)))


def test_several_arrays_without_an_x_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.eye(3), two=np.eye(3))
    with pytest.raises(DataError, match="holds the arrays one, two: call the one with the samples x"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_what_is_no_numpy_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / name)


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "a.npy")
