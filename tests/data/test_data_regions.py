"""Boxes and label maps beside pictures: read, cropped with them, and mirrored and moved with them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.augmentation import Augmentation
from unnoise.data.base import Dataset, Spec, datasets
from unnoise.data.folder import FolderDataset
from unnoise.data.regions import NO_BOX, NOTHING, Regions, boxes_of
from unnoise.data.scenes.scene import SHAPES
from unnoise.errors import DataError


@pytest.fixture
def pictures(tmp_path):
    """A wide picture with two boxes, a tall one with none, and maps of both."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "maps").mkdir()
    for name, size in (("a", (16, 8)), ("b", (8, 16))):
        Image.new("RGB", size, "white").save(tmp_path / "pictures" / f"{name}.png")
        numbers = np.zeros(size[::-1], np.uint8)
        numbers[:, size[0] // 2 :] = 1
        numbers[0, 0] = NOTHING
        Image.fromarray(numbers).save(tmp_path / "maps" / f"{name}.png")
    objects = {"bbox": [[4, 0, 4, 4], [10, 2, 6, 6]], "categories": ["dog", "cat"]}
    lines = [{"file_name": "a.png", "objects": objects}, {"file_name": "b.png"}]
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_boxes_and_maps_are_cropped_as_their_pictures_are(pictures):
    (pictures / "maps" / "names.txt").write_text("land\nsea\n")
    data = FolderDataset(str(pictures / "pictures"), size=8, cache=False, maps=str(pictures / "maps")).load()
    found = data.regions
    assert found.box_names == ("cat", "dog")
    assert found.map_names == ("land", "sea")
    # Of the wide picture the middle half is kept: columns 4 to 12.
    assert found.boxes[0].tolist() == [[1, 0.0, 0.0, 0.5, 0.5], [0, 0.75, 0.25, 1.0, 1.0]]
    assert (found.boxes[1, :, 0] == NO_BOX).all()
    assert found.maps.shape == (2, 8, 8)
    assert torch.equal(found.maps[0], torch.tensor([[0] * 4 + [1] * 4] * 8, dtype=torch.uint8))
    some = data.take(torch.tensor([1]))
    assert torch.equal(some.regions.maps, found.maps[1:])
    assert some.fingerprint() != data.take(torch.tensor([0])).fingerprint()


def test_columns_of_objects_and_maps_are_read_from_parquet(pictures, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def encoded(kind, name):
        return {"bytes": (pictures / kind / f"{name}.png").read_bytes(), "path": None}

    objects = [
        {"bbox": [[4.0, 0.0, 4.0, 4.0], [10.0, 2.0, 6.0, 6.0]], "category": [1, 0]},
        {"bbox": [], "category": []},
    ]
    columns = {
        "image": [encoded("pictures", n) for n in "ab"],
        "objects": objects,
        "segments": [encoded("maps", n) for n in "ab"],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = {"name": "parquet", "path": str(tmp_path / "t.parquet"), "size": 8, "cache": False}
    found = datasets.build({**source, "map_column": "segments"}).load().regions
    other = FolderDataset(str(pictures / "pictures"), size=8, cache=False, maps=str(pictures / "maps")).load().regions
    assert torch.equal(found.boxes[..., 1:], other.boxes[..., 1:])
    assert found.box_names == ("0", "1")
    assert torch.equal(found.maps, other.maps)
    assert datasets.build({**source, "objects_column": ""}).load().regions is None


def test_what_shapes_say_of_their_places_is_what_their_pictures_show():
    data = datasets.build({"name": "shapes", "number": 40, "regions": True}).load()
    found = data.regions
    assert found.box_names == SHAPES
    there = found.boxes[..., 0] != NO_BOX
    assert there.any(1).all()
    for k in range(40):
        background = data.x[k, :, 0, 0]
        drawn = (data.x[k].int() - background[:, None, None].int()).abs().amax(0) > 90
        assert float((drawn != (found.maps[k] > 0)).float().mean()) < 0.03
        rows, columns = torch.nonzero(found.maps[k] > 0, as_tuple=True)
        boxes = found.boxes[k][there[k]] * 64
        # A tip may be so thin that no pixel has its middle in it.
        assert -2.5 < float(boxes[:, 1].min() - columns.min()) < 0.5
        assert -0.5 < float(boxes[:, 4].max() - rows.max() - 1) < 2.5
        for number in boxes[:, 0] / 64:
            assert bool((found.maps[k] == int(number) + 1).any())
    assert datasets.build({"name": "shapes", "number": 2}).load().regions is None


def test_boxes_and_maps_move_as_pictures_do():
    x = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    x[:, :, 5:9, 3:6] = 200
    boxes, names = boxes_of([[("a", 3 / 16, 5 / 16, 6 / 16, 9 / 16)]] * 64)
    regions = Regions(boxes, x[:, 0] // 200, names, ("0", "1"))
    positions = np.arange(64, dtype=np.int64)
    augmentation = Augmentation(flips=True, shift=2)
    seen, told = augmentation.apply(x, 3, positions), augmentation.regions(regions, 3, positions, (16, 16))
    assert torch.equal(told.maps, seen[:, 0] // 200)
    for k in range(64):
        rows, columns = torch.nonzero(seen[k, 0], as_tuple=True)
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        torch.testing.assert_close(told.boxes[k, 0, 1:] * 16, torch.stack(ends).float())
    assert augmentation.regions(regions, 3, positions, (16, 16)).boxes.equal(told.boxes)
    assert len({tuple(row.tolist()) for row in told.boxes[:, 0]}) > 20


def test_a_box_that_is_moved_out_of_the_picture_is_gone():
    boxes, names = boxes_of([[("a", 0.0, 0.0, 1 / 16, 1.0)]] * 64)
    told = Augmentation(shift=2).regions(Regions(boxes, None, names), 0, np.arange(64), (16, 16))
    gone = told.boxes[:, 0, 0] == NO_BOX
    assert 0 < int(gone.sum()) < 64
    assert bool((told.boxes[~gone, 0, 3] > told.boxes[~gone, 0, 1]).all())


def test_boxes_beyond_the_picture_are_cut_or_dropped():
    boxes, names = boxes_of([[("b", -0.5, 0.25, 0.5, 2.0), ("a", 1.0, 0.0, 1.5, 1.0)], []])
    assert names == ("a", "b")
    assert boxes.shape == (2, 1, 5)
    assert boxes[0].tolist() == [[1, 0.0, 0.25, 0.5, 1.0]]
    assert boxes[1, 0, 0] == NO_BOX


def test_what_cannot_be_read_is_told(pictures):
    source = {"name": "folder", "path": str(pictures / "pictures"), "size": 8, "cache": False}
    with pytest.raises(DataError, match=r"data\.maps is where the label maps stand"):
        datasets.build({**source, "maps": str(pictures / "nowhere")}).load()
    (pictures / "maps" / "names.txt").write_text("land\n")
    with pytest.raises(DataError, match=r"a pixel of a label map is 1, and names\.txt names 1 classes"):
        datasets.build({**source, "maps": str(pictures / "maps")}).load()
    (pictures / "maps" / "b.png").unlink()
    with pytest.raises(DataError, match=r"there is no label map .*b\.png: expected a grey or a palette PNG there"):
        datasets.build({**source, "maps": str(pictures / "maps")}).load()
    (pictures / "pictures" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3]], "categories": ["a"]}}'
    )
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: expected objects as \{\"bbox\""):
        datasets.build(source).load()


def test_data_without_regions_has_the_fingerprint_that_it_always_had():
    data = Dataset(torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2), Spec("image", (1, 2, 2)))
    import hashlib

    told = hashlib.sha256(repr((data.spec, None)).encode())
    told.update(data.x.numpy().reshape(-1).data)
    assert data.fingerprint() == told.hexdigest()
