"""A folder packed into shards is the folder, mixed; the same each time, and never half a shard."""

import pytest
import torch

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
