"""A folder packed into shards is the folder, mixed; the same each time, and never half a shard."""

import tarfile

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unnoise.data.folder import FolderDataset
from unnoise.data.pack import bytes_of, pack
from unnoise.data.parquet import ParquetDataset
from unnoise.data.shards import ShardsDataset
from unnoise.errors import BadOption, DataError


def by_caption(data):
    """Pixels and the name of the label by caption."""
    return {
        text: (x.numpy().tobytes(), data.spec.class_names[label])
        for text, x, label in zip(data.texts, data.x, data.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_the_shards_hold_what_the_folder_holds_in_another_order(made, tmp_path, kind):
    shards = pack(made.folder, tmp_path / "out", 6_000 if kind == "parquet" else 40_000, kind)
    assert len(shards) == (3 if kind == "parquet" else 5)
    assert all(shard.stat().st_size < (9_000 if kind == "parquet" else 52_000) for shard in shards)
    data, folder = ShardsDataset(str(tmp_path / "out")).load(), FolderDataset(str(made.folder)).load()
    assert data.spec == folder.spec
    packed = data.take(torch.arange(60))
    assert by_caption(packed) == by_caption(folder)
    assert packed.texts != folder.texts
    assert len(packed.labels[:15].unique()) == 3
    if kind == "parquet":
        assert by_caption(ParquetDataset(str(tmp_path / "out")).load()) == by_caption(folder)


def test_the_same_folder_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    one, two, other = (
        pack(made.folder, tmp_path / name, 12_000, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[0].read_bytes() != other[0].read_bytes()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_captions_that_some_pictures_have_are_packed_and_it_is_said_who_has_none(tmp_path, kind):
    (tmp_path / "pictures").mkdir()
    for k in range(4):
        Image.new("RGB", (8, 8), (60 * k, 0, 0)).save(tmp_path / "pictures" / f"{k}.png")
        if k != 2:
            (tmp_path / "pictures" / f"{k}.txt").write_text(f"picture {k}")
    said = []
    (shard,) = pack(tmp_path / "pictures", tmp_path / "out", kind=kind, note=said.append)
    assert said == [
        "captions: 1 of 4 images have none, e.g. 2.png: training uses captions where every picture has one, in a .txt "
        "file of its name"
    ]
    if kind == "tar":
        with tarfile.open(shard) as tar:
            kept = [tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")]
    else:
        kept = [text for text in pq.read_table(shard)["text"].to_pylist() if text]
    assert sorted(kept) == ["picture 0", "picture 1", "picture 3"]
    data = ShardsDataset(str(tmp_path / "out")).load()
    assert data.take(torch.arange(4)).texts is None
    assert any("captions: none are used, for 1 of 4 samples have none" in line for line in data.skipped)


def test_shards_that_are_there_are_not_mixed_with_new_ones(made, tmp_path):
    pack(made.folder, tmp_path / "out")
    with pytest.raises(DataError, match=r"holds shards already, such as 000000\.tar"):
        pack(made.folder, tmp_path / "out")


def test_what_is_interrupted_leaves_whole_shards_only(made, tmp_path):
    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(made.folder, tmp_path / "out", 12_000, progress=interrupt)
    whole = sorted((tmp_path / "out").iterdir())
    assert whole
    assert all(path.suffix == ".tar" for path in whole)
    assert len(ShardsDataset(str(tmp_path / "out")).load()) < 60


def test_sizes_are_read_as_people_write_them():
    assert [bytes_of(text) for text in ("256MB", "1.5 gb", "10KB")] == [256_000_000, 1_500_000_000, 10_000]
    for wrong in ("256", "MB", "many", "-1GB"):
        with pytest.raises(BadOption, match="expected a size such as 256MB"):
            bytes_of(wrong)
