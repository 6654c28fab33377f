"""Parquet files: images, labels, captions and points in the convention of Hugging Face."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from unnoise.data.parquet import ParquetDataset
from unnoise.data.shards import ShardsDataset
from unnoise.errors import DataError


def write(path, columns, names=None):
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def load(path, **options):
    return ParquetDataset(str(path), **options).load()


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def images(pixels, png):
    return [{"bytes": png(each), "path": f"{i}.png"} for i, each in enumerate(pixels)]


def test_images_labels_and_captions_are_read_with_the_class_names_of_the_file(tmp_path, pixels, images):
    texts = [f"picture {i}" for i in range(5)]
    path = write(tmp_path / "a.parquet", {"image": images, "label": [2, 0, 1, 0, 2], "text": texts}, ["x", "y", "z"])
    data = load(path)
    np.testing.assert_array_equal(data.x.numpy(), pixels.transpose(0, 3, 1, 2))
    assert data.spec.class_names == ("x", "y", "z")
    assert data.labels.tolist() == [2, 0, 1, 0, 2]
    assert data.texts == tuple(texts)
    data.check()


def test_plain_bytes_are_images_too(tmp_path, pixels, images):
    path = write(tmp_path / "a.parquet", {"picture": [image["bytes"] for image in images]})
    data = load(path, image_column="picture", size=4)
    assert data.x.shape == (5, 3, 4, 4)
    assert data.labels is None


def test_folders_and_patterns_are_read_in_the_order_of_names(tmp_path, pixels, images):
    write(tmp_path / "train-1.parquet", {"image": images[3:]})
    write(tmp_path / "train-0.parquet", {"image": images[1:3]})
    write(tmp_path / "test.parquet", {"image": images[:1]})
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    assert torch.equal(load(tmp_path, split="all").x, expected)
    assert torch.equal(load(tmp_path / "train-*.parquet").x, expected[1:])


def test_of_a_folder_with_train_and_test_files_only_those_of_train_are_read_unless_others_are_asked_for(
    tmp_path, pixels, images
):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00002.parquet", {"image": images[:2]})
    write(tmp_path / "data" / "train-00001-of-00002.parquet", {"image": images[2:3]})
    write(tmp_path / "data" / "test-00000-of-00001.parquet", {"image": images[3:]})
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    data = load(tmp_path)
    assert torch.equal(data.x, expected[:3])
    assert data.skipped == ("files of other splits: test (1); data.split=all reads them too",)
    assert torch.equal(load(tmp_path, split="test").x, expected[3:])
    with pytest.raises(DataError, match=r"none of the 3 files belongs to 'val'.*there are: test, train"):
        load(tmp_path, split="val")


def test_the_limit_bounds_the_rows_but_not_the_classes(tmp_path, images):
    path = write(tmp_path / "a.parquet", {"image": images, "label": ["dog", "ant", "cat", "cat", "bee"]})
    data = load(path, limit=3)
    assert len(data) == 3
    assert data.spec.class_names == ("ant", "bee", "cat", "dog")
    assert data.labels.tolist() == [3, 0, 2]
    assert len(load(path, limit=100)) == 5


@pytest.mark.parametrize(
    ("labels", "names"),
    [([7, 3, 3, 11, 7], ("3", "7", "11")), ([True, False, True, True, True], ("False", "True"))],
)
def test_labels_without_names_are_named_after_themselves(tmp_path, images, labels, names):
    data = load(write(tmp_path / "a.parquet", {"image": images, "label": labels}))
    assert data.spec.class_names == names
    assert [names[k] for k in data.labels] == [str(label) for label in labels]


def test_words_of_a_dictionary_column_are_labels(tmp_path, images):
    words = pa.array(["b", "a", "b", "a", "b"]).dictionary_encode()
    assert load(write(tmp_path / "a.parquet", {"image": images, "label": words})).labels.tolist() == [1, 0, 1, 0, 1]


def test_images_of_which_only_the_path_is_there_are_said_to_be_not_embedded(tmp_path, images):
    told = (
        "its bytes are not embedded, there is only the path b.png: embed the files (datasets: cast the column to Image(), then "
        "push_to_hub() or save_to_disk()), or give their folder"
    )
    one = write(tmp_path / "one.parquet", {"image": [images[0], {"bytes": None, "path": "b.png"}]})
    assert load(one).skipped == (f"one.parquet row 1: {told}",)
    streamed = ShardsDataset(str(one)).load()
    assert streamed.take(torch.arange(2)).skipped == (f"one.parquet row 1: {told}; replaced by its neighbour",)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    none = write(tmp_path / "none.parquet", {"image": pa.array([{"bytes": None, "path": "b.png"}] * 3, kind)})
    with pytest.raises(DataError) as refused:
        load(none)
    assert str(refused.value) == f"none of the 3 images can be read, e.g. none.parquet row 0: {told}"
    with pytest.raises(DataError) as refused:
        ShardsDataset(str(none)).load().take(torch.arange(2))
    assert str(refused.value) == f"none of the 3 samples of none.parquet can be read, e.g. none.parquet row 0: {told}"


def test_broken_images_are_skipped_with_their_labels_and_captions(tmp_path, pixels, images):
    images[1] = {"bytes": b"no picture", "path": None}
    images[3] = {"bytes": None, "path": None}
    path = write(tmp_path / "a.parquet", {"image": images, "label": [0, 1, 2, 3, 4], "text": list("abcde")})
    for _ in range(2):
        data = load(path)
        assert data.skipped == ("a.parquet row 1: cannot identify image file", "a.parquet row 3: there is no image")
        assert data.labels.tolist() == [0, 2, 4]
        assert data.texts == ("a", "c", "e")
        np.testing.assert_array_equal(data.x.numpy(), pixels[[0, 2, 4]].transpose(0, 3, 1, 2))


def test_a_second_load_decodes_nothing(tmp_path, images, monkeypatch):
    path = write(tmp_path / "a.parquet", {"image": images})
    first = load(path)
    monkeypatch.setattr("unnoise.data._cache.decode_all", None)
    assert torch.equal(load(path).x, first.x)
    os.utime(path, ns=(0, 0))
    with pytest.raises(TypeError):
        load(path)


def test_columns_of_numbers_are_points(tmp_path):
    columns = {"x": [0.5, 1.5], "n": [1, 2], "label": [1, 0], "text": ["a", "b"], "note": ["?", "!"]}
    data = load(write(tmp_path / "a.parquet", columns, ["left", "right"]))
    assert data.spec.kind == "points"
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert data.labels.tolist() == [1, 0]
    assert data.spec.class_names == ("left", "right")
    assert data.texts == ("a", "b")
    assert data.skipped == ("column 'note': holds string, not numbers",)
    first = load(tmp_path / "a.parquet", limit=1)
    assert first.x.tolist() == [[0.5, 1.0]]
    assert first.labels.tolist() == [1]


def test_an_empty_cell_of_a_point_is_not_a_number_and_check_refuses_it(tmp_path):
    data = load(write(tmp_path / "a.parquet", {"x": [0.5, None, 1.0], "n": [1, 2, None]}))
    assert data.x.isnan().tolist() == [[False, False], [True, False], [False, True]]
    with pytest.raises(DataError, match="2 of 3 samples"):
        data.check()


def test_missing_labels_are_refused_by_row(tmp_path, images):
    path = write(tmp_path / "a.parquet", {"image": images, "label": [0, None, 1, None, None]})
    with pytest.raises(
        DataError, match=r"labels missing for 3 of 5 rows, e.g. row 1: fill them in or set data.label_column"
    ):
        load(path)
    assert load(path, label_column="").labels is None


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_outside_of_the_classes_are_refused(tmp_path, images, wrong):
    path = write(tmp_path / "a.parquet", {"image": images, "label": [0, 1, wrong, 0, 0]}, ["a", "b"])
    with pytest.raises(DataError, match=f"label {wrong} of row 2 is none of the 2 classes"):
        load(path)


def test_labels_of_another_type_are_refused(tmp_path, images):
    with pytest.raises(DataError, match="labels must be whole numbers or words, got double"):
        load(write(tmp_path / "a.parquet", {"image": images, "label": [0.5] * 5}))


def test_captions_of_some_rows_are_not_used_and_that_is_said(tmp_path, images):
    data = load(write(tmp_path / "a.parquet", {"image": images, "text": ["a", None, "b", "c", None]}))
    assert data.texts is None
    assert data.skipped == ("captions: none are used, for 2 of 5 rows have none in column 'text', e.g. row 1",)
    with pytest.raises(DataError, match="captions must be strings"):
        load(write(tmp_path / "b.parquet", {"image": images, "text": [1] * 5}))


def test_a_column_that_was_asked_for_must_be_there(tmp_path, images):
    path = write(tmp_path / "a.parquet", {"image": images, "fine": [1] * 5})
    with pytest.raises(DataError, match=r"has no column 'coarse' \(data.label_column\); it has image, fine"):
        load(path, label_column="coarse")


def test_a_table_of_something_else_is_refused_with_its_columns(tmp_path, images):
    with pytest.raises(DataError, match=r"column 'img' holds struct.*data.image_column \(columns: img, n\)"):
        load(write(tmp_path / "a.parquet", {"img": images, "n": [1] * 5}))
    with pytest.raises(DataError, match=r"no image column and no column of numbers \(columns: word\)"):
        load(write(tmp_path / "b.parquet", {"word": ["a", "b"]}))
    with pytest.raises(DataError, match="holds int64, no images"):
        load(write(tmp_path / "c.parquet", {"image": [1, 2]}))


def test_files_of_different_kinds_are_refused(tmp_path, images):
    write(tmp_path / "a.parquet", {"image": images, "label": [0] * 5}, ["x", "y"])
    write(tmp_path / "b.parquet", {"image": images, "label": [0] * 5}, ["y", "x"])
    with pytest.raises(DataError, match=r"the classes of column 'label' differ, see .*b.parquet"):
        load(tmp_path)
    write(tmp_path / "b.parquet", {"image": images})
    with pytest.raises(DataError, match=r"column 'label' is not in all of the files, see .*b.parquet"):
        load(tmp_path)


def test_what_is_not_there_not_parquet_or_empty_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there are no \.parquet files in"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"there is no file .*train-\*.parquet"):
        load(tmp_path / "train-*.parquet")
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"a.parquet cannot be read as Parquet"):
        load(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no rows"):
        load(write(tmp_path / "b.parquet", {"x": pa.array([], pa.float64())}))
