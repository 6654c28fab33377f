"""Shards of every kind give the samples of the folder that they were made from, in any order, and say what is wrong."""

import io
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from unnoise.data.folder import FolderDataset
from unnoise.data.inspect import inspect_data
from unnoise.data.open import source_of
from unnoise.data.parquet import ParquetDataset
from unnoise.data.shards import ShardsDataset
from unnoise.data.streaming.store import Store, find_shards
from unnoise.errors import BadOption, DataError

KINDS = ["tar", "parquet", "arrow", "memory", "images"]


def shards(kind, made, tmp_path):
    """The path of the pictures in shards of some kind."""
    if kind == "images":
        return str(made.folder)
    if kind == "arrow":
        return save_to_disk(made, tmp_path / "saved")
    if kind == "memory":
        return in_memory(made, tmp_path)
    return str(getattr(made, kind)(tmp_path / kind))


def save_to_disk(made, folder):
    import datasets

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog", "eel"]), text=datasets.Value("string")
    )
    columns = {
        "image": [{"bytes": each, "path": None} for each in made.encoded],
        "label": made.labels,
        "text": made.texts,
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder, num_shards=3)
    return str(folder)


def in_memory(made, tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    place = f"/{tmp_path.name}"
    for file in made.tar(tmp_path / "tar").iterdir():
        store.pipe(f"{place}/{file.name}", file.read_bytes())
    return f"memory:/{place}"


def load(path, **options):
    return ShardsDataset(str(path), **options).load()


@pytest.fixture(params=KINDS)
def data(request, made, tmp_path):
    return load(shards(request.param, made, tmp_path))


def test_the_samples_are_those_of_the_folder_with_their_labels_and_captions(data, made):
    folder = FolderDataset(str(made.folder)).load()
    assert data.spec == folder.spec
    assert len(data) == len(folder)
    for indices in (torch.arange(60), torch.randperm(60, generator=torch.Generator().manual_seed(0))[:17]):
        part, expected = data.take(indices), folder.take(indices)
        assert torch.equal(part.x, expected.x)
        assert torch.equal(part.labels, expected.labels)
        assert part.texts == expected.texts
    assert not data.skipped
    data.check()


def test_the_order_is_one_epoch_after_another_of_all_samples(data):
    seen = data.order(5, 4).index_at(np.arange(120)).reshape(2, 60)
    for epoch in seen:
        assert sorted(epoch) == list(range(60))
    assert (seen[0] != seen[1]).any()


def test_a_split_shares_out_the_samples_one_by_one(data, made):
    folder = FolderDataset(str(made.folder)).load()
    parts, expected = data.split(0.3, seed=4), folder.split(0.3, seed=4)
    for part, other in zip(parts, expected, strict=True):
        assert len(part) == len(other)
        assert part.take(torch.arange(len(part))).texts == other.texts
        assert sorted(part.order(0).index_at(np.arange(len(part)))) == list(range(len(part)))
    assert parts[0].fingerprint() != parts[1].fingerprint() != data.fingerprint()
    assert len(data.split(0.0)[1]) == 0
    assert len(data.split(0.0)[1].part()) == 0


def test_a_part_comes_from_all_over_the_data(data):
    assert data.part().texts == data.take(torch.arange(60)).texts
    part = data.part(6)
    assert len(part) == 6
    assert part.labels.unique().tolist() == [0, 1, 2]


def test_the_report_counts_all_and_looks_at_some(data):
    report = inspect_data(data, most=12)
    assert (report.count, report.looked_at) == (60, 12)
    assert sum(report.labels.values()) == 12


def test_a_second_load_scans_nothing(tmp_path, made, monkeypatch):
    folder = made.tar(tmp_path / "tar")
    first = load(folder)
    monkeypatch.setattr(tarfile, "open", None)
    second = load(folder)
    assert second.fingerprint() == first.fingerprint()
    assert torch.equal(second.take(torch.arange(60)).x, first.take(torch.arange(60)).x)


def test_what_cannot_be_kept_in_the_cache_is_indexed_all_the_same(tmp_path, made, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(made.folder / "cat" / "000.png" / "cache"))
    assert load(made.tar(tmp_path / "tar")).take(torch.arange(60)).texts == tuple(made.texts)


def test_the_fingerprint_is_of_what_the_shards_hold_and_not_of_when_they_were_written(tmp_path, made):
    folder = made.tar(tmp_path / "tar")
    before = load(folder).fingerprint()
    os.utime(folder / "002.tar", ns=(5, 5))
    assert load(folder).fingerprint() == before
    content = bytearray((folder / "002.tar").read_bytes())
    content[600] ^= 1
    (folder / "002.tar").write_bytes(content)
    assert load(folder).fingerprint() != before


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_that_changes_while_it_is_read_is_named(tmp_path, made, kind):
    folder = getattr(made, kind)(tmp_path / "shards")
    data = load(folder)
    third = sorted(folder.iterdir())[2]
    os.utime(third, ns=(5, 5))
    with pytest.raises(DataError, match=f"the shard {third.name} has changed since the data was opened"):
        data.take(torch.arange(60))


def test_a_picture_that_is_broken_is_replaced_by_its_neighbour_and_named(tmp_path, made):
    broken = {13: b"no picture", 25: b"nor this"}  # the first and the last of the second shard
    data = load(made.tar(tmp_path / "tar", change=lambda i, encoded: broken.get(i, encoded)))
    part = data.take(torch.tensor([12, 13, 25, 26]))
    assert part.texts == ("picture 12", "picture 14", "picture 14", "picture 26")
    np.testing.assert_array_equal(part.x.numpy(), made.pixels[[12, 14, 14, 26]].transpose(0, 3, 1, 2))
    assert part.skipped == (
        "001.tar sample 0 (013): cannot identify image file; replaced by its neighbour",
        "001.tar sample 12 (025): cannot identify image file; replaced by its neighbour",
    )
    training, held_out = data.split(0.5, seed=1)
    for each in (training, held_out):  # the neighbour is one of the same part
        own = set(each.take(torch.arange(len(each))).texts)
        assert own <= {f"picture {int(i)}" for i in each.rows}


def test_a_shard_without_a_single_picture_that_can_be_read_is_refused(tmp_path, made):
    data = load(made.tar(tmp_path / "tar", change=lambda i, encoded: b"" if 13 <= i < 26 else encoded))
    with pytest.raises(DataError, match=r"none of the 13 samples of 001.tar can be read, e.g. 001.tar sample 2"):
        data.take(torch.tensor([15]))


def test_a_grey_set_with_a_picture_in_colour_is_not_made_grey_in_silence(tmp_path, made, png, rng):
    grey = [png(each) for each in rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)]
    data = load(made.tar(tmp_path / "tar", each=30, change=lambda i, encoded: encoded if i == 29 else grey[i]))
    assert data.spec.shape == (1, 8, 8)
    with pytest.raises(DataError, match=r"000.tar sample 29 \(029\) has colours.*set data.channels to 3 or 1"):
        data.take(torch.tensor([29]))
    assert load(tmp_path / "tar", channels=1).take(torch.tensor([29])).x.shape == (1, 1, 8, 8)
    assert load(tmp_path / "tar", channels=3).take(torch.tensor([0])).x.shape == (1, 3, 8, 8)


def test_points_in_tables_and_arrays_in_tar_files_are_samples_too(tmp_path, made, rng):
    points = rng.standard_normal((30, 2)).astype(np.float32)
    pq.write_table(pa.table({"x": points[:, 0], "y": points[:, 1], "label": [0, 1] * 15}), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    expected = ParquetDataset(str(tmp_path / "a.parquet")).load()
    assert data.spec == expected.spec
    assert torch.equal(data.take(torch.arange(30)).x, expected.x)
    assert torch.equal(data.take(torch.arange(30)).labels, expected.labels)
    latents = rng.standard_normal((4, 4, 2, 2)).astype(np.float16)
    with tarfile.open(tmp_path / "latents.tar", "w") as tar:
        for i, each in enumerate(latents):
            stream = io.BytesIO()
            np.save(stream, each)
            made.add(tar, f"{i}.npy", stream.getvalue())
    data = load(tmp_path / "latents.tar")
    assert (data.spec.kind, data.spec.shape) == ("array", (4, 2, 2))
    np.testing.assert_array_equal(data.take(torch.tensor([3, 1])).x.numpy(), latents[[3, 1]].astype(np.float32))


def test_flips_and_shifts_travel_with_the_data(tmp_path, made):
    data = load(made.tar(tmp_path / "tar"), flips=True, shift=2)
    assert (data.augmentation.flips, data.augmentation.shift) == (True, 2)
    assert data.split(0.5)[0].augmentation == data.augmentation == data.take(torch.arange(2)).augmentation


def test_copies_of_remote_shards_are_kept_up_to_a_limit(tmp_path, made, cache_dir):
    path = in_memory(made, tmp_path)
    size = (tmp_path / "tar" / "000.tar").stat().st_size
    for gigabytes, most in ((2.5 * size / 1e9, 2), (0.5 * size / 1e9, 1), (0.0, 0)):
        for file in (cache_dir / "shards").glob("*"):
            file.unlink()
        data = load(path, copies=gigabytes)
        assert data.take(torch.arange(60)).texts == tuple(made.texts)
        assert len(list((cache_dir / "shards").glob("*"))) == most


def test_shards_that_are_copied_at_the_same_time_are_kept_up_to_the_limit_too(tmp_path, made, cache_dir):
    shards = find_shards(in_memory(made, tmp_path), [".tar"])
    store, all_there = Store(2 * shards[0].size + 1), threading.Barrier(len(shards))

    def read(shard):
        all_there.wait()
        with store.open(shard) as file:
            return file.read()

    with ThreadPoolExecutor(len(shards)) as pool:
        assert list(pool.map(read, shards)) == [(tmp_path / "tar" / each.name).read_bytes() for each in shards]
    assert len(list((cache_dir / "shards").glob("*"))) == 2


def test_a_path_leads_to_the_source_that_reads_it(tmp_path, made):
    assert isinstance(source_of(made.tar(tmp_path / "tar")), ShardsDataset)
    assert isinstance(source_of(f"{tmp_path}/tar/*.tar"), ShardsDataset)
    assert isinstance(source_of("s3://bucket/prefix"), ShardsDataset)
    assert isinstance(source_of(made.folder), FolderDataset)
    assert isinstance(source_of(made.folder, stream=True), ShardsDataset)
    assert isinstance(source_of(made.parquet(tmp_path / "parquet")), ParquetDataset)


def test_what_is_wrong_with_shards_is_said_in_one_line(tmp_path, made):
    folder = made.tar(tmp_path / "tar")
    whole = (folder / "000.tar").read_bytes()
    cases = {
        "cut.tar": (whole[:5000], "cut.tar cannot be read as tar: unexpected end of data"),
        "packed.tar": (b"\x1f\x8b" + bytes(600), "cannot be read as tar: it is compressed; give a whole tar file"),
        "other.parquet": (b"PAR1 not", "other.parquet cannot be read as Parquet"),
        "other.arrow": (b"not arrow at all", "other.arrow cannot be read as Arrow"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
    with pytest.raises(DataError, match=r"there are no \.tar files at"):
        load(tmp_path / "none-*.tar")
    with pytest.raises(DataError, match=r"nosuch://x/y.tar cannot be read: .*give a URL that fsspec knows"):
        load("nosuch://x/y.tar")
    with pytest.raises(BadOption, match="channels: must be 1"):
        load(folder, channels=2)
    (folder / "extra.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds shards of several kinds: \.tar \(5\), \.parquet \(1\): say which"):
        load(folder)


def test_labels_that_some_samples_or_shards_lack_are_refused(tmp_path, made):
    folder = made.tar(tmp_path / "tar")
    with tarfile.open(folder / "009.tar", "w") as tar:
        made.add(tar, "a.png", made.encoded[0])
    with pytest.raises(DataError, match=r"labels are not in all shards, see 009.tar"):
        load(folder)
    with tarfile.open(folder / "009.tar", "w") as tar:
        made.add(tar, "a.png", made.encoded[0])
        made.add(tar, "b.png", made.encoded[0])
        made.add(tar, "b.cls", b"cat")
    with pytest.raises(DataError, match=r"labels missing for 1 of 2 samples of 009.tar, e.g. a"):
        load(folder)
    data = load(folder, label_column="")
    assert data.take(torch.arange(3)).labels is None
    assert data.skipped == ("captions: none are used, for 2 of 62 samples have none, e.g. a of 009.tar",)


@pytest.mark.parametrize("missing", [[4, 7], []], ids=["some rows", "the whole column"])
def test_the_first_row_without_a_caption_is_named(tmp_path, made, missing):
    folder = made.parquet(tmp_path / "shards")
    third = sorted(folder.iterdir())[2]
    table = pq.read_table(third)
    texts = [None if i in missing else text for i, text in enumerate(table["text"].to_pylist())]
    left = table.drop_columns("text")
    pq.write_table(left.append_column("text", pa.array(texts)) if missing else left, third)
    told = (
        f"2 of 60 samples have none, e.g. row 4 of {third.name}"
        if missing
        else f"13 of 60 samples have none, e.g. row 0 of {third.name}"
    )
    for _ in range(2):  # the second time by the index that is kept
        data = load(folder)
        assert data.skipped == (f"captions: none are used, for {told}",)
        assert data.take(torch.arange(3)).texts is None


def test_several_data_sets_that_were_saved_together_must_be_chosen_from(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data.arrow").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds several data sets \(train, test\): give one of them"):
        load(tmp_path)


def test_a_sample_that_is_no_number_is_called_by_its_number_in_the_whole_data_and_by_its_shard(tmp_path, made, rng):
    values = rng.standard_normal((400, 2)).astype(np.float32)
    values[250, 1] = np.nan
    for shard in range(4):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(100 * shard, 100 * shard + 100):
                stream = io.BytesIO()
                np.save(stream, values[i])
                made.add(tar, f"{i:03}.npy", stream.getvalue())
    data = load(tmp_path / "*.tar")
    assert len(data.part(256)) == 256
    with pytest.raises(DataError) as refused:
        data.check()
    assert str(refused.value) == (
        "1 of 256 samples (looked at, of 400) hold NaN or infinity (the first is number 250, 2.tar sample 50 (250)): "
        "remove or repair them"
    )
