"""CSV tables: header or none, labels or none, and every wrong cell by line and column."""

import pytest
import torch

from unnoise.data.table import CsvDataset
from unnoise.errors import DataError


@pytest.fixture
def load(tmp_path):
    def write_and_load(text, encoding="utf-8"):
        path = tmp_path / "a.csv"
        path.write_bytes(text.encode(encoding))
        return CsvDataset(str(path)).load()

    return write_and_load


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n1,2.5\n-3e1,4\n",
        "1,2.5\n-3e1,4",
        "x;y\r\n1;2.5\r\n\r\n-30;4\r\n",
        "x\ty\n1\t2.5\n-30\t 4 \n",
        '"x","y"\n"1","2.5"\n-30,4',
    ],
)
def test_points_are_read_with_or_without_a_header_and_by_any_delimiter(load, text):
    data = load(text)
    assert data.spec.kind == "points"
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == [[1.0, 2.5], [-30.0, 4.0]]
    assert data.labels is None


def test_a_mark_at_the_start_of_the_file_is_no_part_of_the_header(load):
    assert load("label,x\na,1\nb,2", encoding="utf-8-sig").spec.class_names == ("a", "b")


@pytest.mark.parametrize("name", ["label", "Class"])
def test_a_column_of_labels_may_hold_words_or_numbers(load, name):
    data = load(f"x,{name},y\n1,b,2\n3,a,4\n5,b,6")
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.labels.tolist() == [1, 0, 1]
    assert data.spec.class_names == ("a", "b")
    assert load(f"x,{name}\n1,10\n3,9").spec.class_names == ("9", "10")


def test_a_cell_that_is_no_number_is_named_by_line_and_column(load):
    with pytest.raises(DataError, match=r"a.csv, line 4, column y: 'two' is no number: correct it"):
        load("x,y\n1,2\n\n1,two\n")
    with pytest.raises(
        DataError, match=r"line 1, column 3: 'cat' is no number: correct it, or call the column \"label\""
    ):
        load("1,2,cat\n")
    with pytest.raises(DataError, match=r"line 3, column x: the cell is empty"):
        load("x,y\n1,2\n,2\n")


def test_a_row_of_another_length_is_refused(load):
    with pytest.raises(DataError, match="line 3: expected 2 cells, got 3"):
        load("x,y\n1,2\n1,2,3\n")


def test_a_missing_label_is_refused(load):
    with pytest.raises(DataError, match="line 3, column label: the label is missing"):
        load("x,label\n1,a\n2,\n")


@pytest.mark.parametrize("text", ["", "\n\n", "x,y\n"])
def test_a_table_without_rows_is_refused(load, text):
    with pytest.raises(DataError, match="has no rows of numbers"):
        load(text)


def test_a_table_of_nothing_but_labels_is_refused(load):
    with pytest.raises(DataError, match="has no columns of numbers beside 'label'"):
        load("label\na\nb\n")


def test_a_file_in_another_encoding_or_none_is_refused(load, tmp_path):
    with pytest.raises(DataError, match="save it as UTF-8"):
        load("größe,y\n1,2", encoding="latin-1")
    with pytest.raises(DataError, match="there is no file"):
        CsvDataset(str(tmp_path / "none.csv")).load()
