"""Captions beside pictures are used when every picture has one."""

import json

import numpy as np
import pytest

from unnoise.data.folder import FolderDataset
from unnoise.errors import DataError


def load(folder, **options):
    return FolderDataset(str(folder), **options).load()


def test_captions_come_from_metadata_or_from_text_files(tmp_path, pictures):
    pictures(tmp_path, 3, "sub/{}.png")
    (tmp_path / "sub" / "2.txt").write_text("a third\n", encoding="utf-8")
    records = [{"file_name": f"sub/{i}.png", "text": f"picture {i}"} for i in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    assert load(tmp_path).texts == ("picture 0", "picture 1", "a third")


def test_captions_of_some_pictures_are_not_used_and_that_is_said(tmp_path, pictures):
    pictures(tmp_path, 3)
    (tmp_path / "0.txt").write_text("the first", encoding="utf-8")
    data = load(tmp_path)
    assert data.texts is None
    assert data.skipped == ("captions: none are used, for 2 of 3 images have none, e.g. 1.png",)


@pytest.mark.parametrize("line", ["{", '{"text": "no name"}', "[1]"])
def test_a_wrong_line_of_metadata_is_named(tmp_path, save, line):
    save(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n' + line, encoding="utf-8")
    with pytest.raises(DataError, match=r"metadata.jsonl, line 2: expected"):
        load(tmp_path)
