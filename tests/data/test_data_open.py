"""A path is opened by what stands there."""

import numpy as np
import pytest

from unnoise.data.array import ArrayDataset
from unnoise.data.folder import FolderDataset
from unnoise.data.open import source_of
from unnoise.data.parquet import ParquetDataset
from unnoise.data.table import CsvDataset
from unnoise.errors import BadOption, DataError


@pytest.mark.parametrize(
    ("name", "cls"),
    [("a.parquet", ParquetDataset), ("a.npy", ArrayDataset), ("a.NPZ", ArrayDataset), ("a.csv", CsvDataset)],
)
def test_a_file_is_opened_by_its_ending(tmp_path, name, cls):
    (tmp_path / name).touch()
    assert source_of(tmp_path / name) == cls(str(tmp_path / name))


def test_a_folder_is_one_of_images_unless_it_holds_parquet_files(tmp_path):
    assert source_of(str(tmp_path), size=32, channels="3") == FolderDataset(str(tmp_path), size=32, channels=3)
    (tmp_path / "a.parquet").touch()
    assert source_of(tmp_path, limit=5) == ParquetDataset(str(tmp_path), limit=5)
    pattern = str(tmp_path / "*.parquet")
    assert source_of(pattern) == ParquetDataset(pattern)


def test_an_option_that_the_source_does_not_have_is_refused(tmp_path):
    with pytest.raises(BadOption, match=r"folder.sizes: there is no such option; did you mean 'size'\?"):
        source_of(tmp_path, sizes=3)


def test_nothing_a_single_image_and_other_files_are_refused_with_what_is_read(tmp_path, save):
    with pytest.raises(DataError, match=r"there is nothing at .*: give a folder of images, a .parquet file"):
        source_of(tmp_path / "none")
    with pytest.raises(DataError, match="there is nothing at"):
        source_of(tmp_path / "*.parquet")
    with pytest.raises(DataError, match="is a single image: give the folder that holds it"):
        source_of(save(tmp_path / "a.png", np.zeros((2, 2), np.uint8)))
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=r"a.zip cannot be read: give a folder of images"):
        source_of(tmp_path / "a.zip")


def test_a_misspelt_shipped_data_set_gets_a_suggestion_and_a_path_none():
    with pytest.raises(DataError, match=r"comes with unnoise; did you mean 'digits'\? \(known: .*\): give a folder"):
        source_of("digit")
    with pytest.raises(DataError, match=r"no data set of that name comes with unnoise \(known: .*digits, .*\): give"):
        source_of("qqqq")
    with pytest.raises(DataError, match=r"there is nothing at places/digit: give a folder"):
        source_of("places/digit")
