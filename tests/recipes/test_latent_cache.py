"""Latents that are encoded once: the same training, resumed after a kill, and refused where they are of something else."""

import numpy as np
import pytest
import torch

from unnoise.codecs.autoencoder import AutoencoderCodec
from unnoise.codecs.identity import IdentityCodec
from unnoise.codecs.stored import StoredLatents
from unnoise.data.base import Dataset, Spec
from unnoise.data.latents import LatentDataset, read_shard, write_shard
from unnoise.errors import DataError, IncompatibleParts
from unnoise.nn.autoencoder import AutoencoderConfig
from unnoise.nn.base import networks
from unnoise.recipes import latents as cache
from unnoise.recipes.codec_folder import save_codec
from unnoise.recipes.latents import encode_into, latents_of
from unnoise.recipes.prepare import prepare
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.threads import step_operations

SMALL = AutoencoderConfig(width=4, multipliers=(1, 1), blocks=1, latent_channels=2, attention=False)
SPEC = Spec("image", (3, 8, 8), ("a", "b"))


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "ROWS", 16)


def pictures(n=40, seed=0):
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Dataset(x, SPEC, torch.arange(n) % 2, tuple(f"picture {i}" for i in range(n)))


def codec(seed=0, **chosen):
    made = AutoencoderCodec.untrained((3, 8, 8), SMALL, IdentityCodec.pixels(), seed).whitened(pictures().x)
    return made.chosen(AutoencoderCodec(**chosen))


def recipe(place, **more):
    data = pictures()
    np.savez(place / "pictures.npz", x=data.x.numpy(), labels=data.labels.numpy())
    save_codec(place / "ae", codec(), SPEC, {"steps": 0})
    network = {"name": "unet", "width": 8, "multipliers": [1], "blocks": 1}
    training = {"steps": 3, "batch_size": 4, "validation_size": 16, "sample_every": 0, "validation_share": 0.25}
    values = {
        "data": {"name": "array", "path": str(place / "pictures.npz")}, "network": network, "training": training,
        "codec": {"name": "autoencoder", "path": str(place / "ae")}, "denoiser": {"name": "v", "sigma_data": 1.0},
    }  # fmt: skip
    return load_recipe(values, **more)


def test_what_is_kept_is_what_the_codec_says(tmp_path):
    made, data = codec(), pictures()
    found = latents_of(made, data)
    torch.testing.assert_close(found.codec.encode(found.data.x), made.encode(data.x), rtol=1e-3, atol=1e-3)
    assert found.data.texts == data.texts
    assert torch.equal(found.data.labels, data.labels)
    assert found.data.spec == Spec("array", (2, 4, 4), ("a", "b"))
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 1


def test_mirror_images_and_drawn_latents_are_those_that_are_encoded_each_time():
    data = pictures()
    data = Dataset(data.x, data.spec, augmentation=type(data.augmentation)(flips=True))
    made, positions = codec(posterior="sample"), np.arange(40)
    found = latents_of(made, data)
    assert found.data.spec.shape == (8, 4, 4)  # means and deviations, plain and mirrored
    seen = found.codec.drawn(found.data.augmentation.apply(found.data.x, 3, positions), 3, positions)
    expected = made.drawn(data.augmentation.apply(data.x, 3, positions), 3, positions)
    torch.testing.assert_close(seen, expected, rtol=2e-3, atol=5e-3)
    assert (seen - found.codec.encode(found.data.x)).abs().max() > 0.1
    moved = Dataset(data.x, data.spec, augmentation=type(data.augmentation)(shift=1))
    assert latents_of(made, moved) is None
    with pytest.raises(IncompatibleParts, match="have no decoder"):
        StoredLatents().decode(seen)


def test_training_on_what_is_kept_is_training_on_what_is_encoded_each_time(tmp_path):
    ends = {}
    for where in ("none", "auto"):
        run = Run(recipe(tmp_path, codec__latents=where), tmp_path / where)
        for _ in run.events():
            pass
        ends[where] = run.state.masters.vector
        assert run.model().trained["data"] == run.train_data.fingerprint()
        assert (run.work.prepared.latents is None) == (where == "none")
    torch.testing.assert_close(ends["none"], ends["auto"], rtol=1e-3, atol=2e-4)
    (folder,) = (tmp_path / "cache" / "latents").iterdir()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = prepare(recipe(tmp_path))  # nothing is encoded again
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert (len(again.latents.train), len(again.latents.held_out)) == (30, 10)
    assert torch.equal(again.latents.train.labels, again.train.labels)


def test_encoding_goes_on_after_a_kill(tmp_path):
    made, data, told = codec(), pictures(), []
    stopped = encode_into(tmp_path / "l", made, data, stop=lambda: len(list((tmp_path / "l").glob("*.saf*"))) == 2)
    assert (stopped.made, stopped.whole) == (32, False)
    stamp = (tmp_path / "l" / "00000.safetensors").stat().st_mtime_ns
    (tmp_path / "l" / ".00002.safetensors.77.partial").write_bytes(b"half")
    rest = encode_into(tmp_path / "l", made, data, progress=lambda *at: told.append(at))
    assert (rest.made, rest.whole) == (8, True)
    assert told == [("encoding the data", 40, 40)]
    assert (tmp_path / "l" / "00000.safetensors").stat().st_mtime_ns == stamp
    assert encode_into(tmp_path / "l", made, data).made == 0


def test_latents_of_something_else_are_refused(tmp_path):
    folder, data = tmp_path / "l", pictures()
    encode_into(folder, codec(), data)
    with pytest.raises(
        DataError, match=r"the latents in .*l were made by another codec \([0-9a-f]{12}, and this one is"
    ):
        latents_of(codec(seed=1, latents=str(folder)), data)
    with pytest.raises(DataError, match="are those of other data: encode into another folder"):
        latents_of(codec(latents=str(folder)), pictures(seed=5))
    with pytest.raises(DataError, match=r"know no variances to draw from"):
        latents_of(codec(latents=str(folder), posterior="sample"), data)
    flipped = Dataset(data.x, data.spec, data.labels, data.texts, augmentation=type(data.augmentation)(flips=True))
    with pytest.raises(DataError, match=r"know no mirror images, which data\.flips shows"):
        latents_of(codec(latents=str(folder)), flipped)
    (folder / cache.ABOUT).write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        latents_of(codec(latents=str(folder)), data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(DataError, match="is no folder of latents, and not empty"):
        encode_into(tmp_path / "other", codec(), data)


def test_a_damaged_shard_is_told(tmp_path):
    encode_into(tmp_path / "l", codec(), pictures())
    (tmp_path / "l" / "00001.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"00001\.safetensors is damaged .*: remove it, and it is made again"):
        latents_of(codec(latents=str(tmp_path / "l")), pictures())


def test_data_that_is_read_as_it_is_needed_has_latents_that_are_too(tmp_path):
    data = pictures()
    for i in range(2):
        part = data.take(torch.arange(20 * i, 20 * i + 20))
        write_shard(tmp_path / f"{i}.safetensors", part.x.half(), part.labels, part.texts)
    shards = tuple(read_shard(tmp_path / f"{i}.safetensors") for i in range(2))
    whole = LatentDataset(shards, Spec("array", (3, 8, 8), ("a", "b")))
    some = whole.take(torch.tensor([39, 0, 20, 0]))
    assert torch.equal(some.x, data.x[[39, 0, 20, 0]].half())
    assert some.labels.tolist() == [1, 0, 0, 0]
    assert some.texts == ("picture 39", "picture 0", "picture 20", "picture 0")
    for mine, theirs in zip(whole.split(0.25, 3), data.split(0.25, 3), strict=True):
        assert torch.equal(mine.part().x, theirs.x.half())
    assert len(whole.take(torch.zeros(0, dtype=torch.int64)).labels) == 0
    assert len(whole.split(0.0)[1]) == 0
    assert whole.part(7).x.shape == (7, 3, 8, 8)
    assert whole.fingerprint() != whole.split(0.25)[0].fingerprint()
    assert sorted(whole.order(0).index_at(np.arange(40)).tolist()) == list(range(40))
    assert "2 shards" in whole.layout()


def test_a_step_on_latents_of_factor_4_costs_an_eighth_at_most():
    costs = []
    with torch.device("meta"):
        for shape in ((3, 32, 32), (8, 8, 8)):
            config = networks["unet"].Config(width=64, multipliers=(1, 2), blocks=2, attention=(-1,))
            costs.append(step_operations(networks["unet"](shape, None, 10, config), shape, 1))
    assert costs[0] > 8 * costs[1]


def test_a_writer_that_was_killed_at_its_first_file_is_in_nobodys_way(tmp_path):
    made, data = codec(), pictures()
    folder = tmp_path / "latents"
    folder.mkdir()
    (folder / ".latents.json.77.partial").write_bytes(b"{")
    assert encode_into(folder, made, data).whole
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is no folder of latents, and not empty"):
        encode_into(other, made, data)


def test_processes_that_run_together_share_out_what_is_to_be_encoded(tmp_path, monkeypatch):
    made, data, orders = codec(), pictures(64), []
    whole = encode_into(tmp_path / "alone", made, data).folder
    for rank in (0, 1):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        seen = []
        monkeypatch.setattr(cache, "write_shard", lambda path, *_, seen=seen: seen.append(path.name))
        encode_into(tmp_path / f"of {rank}", made, data)
        orders.append([int(name.partition(".")[0]) for name in seen])
    assert orders == [[0, 1, 2, 3], [2, 3, 0, 1]]
    monkeypatch.undo()
    monkeypatch.setattr(cache, "ROWS", 16)

    def beside(path, *parts):  # another process that has the last two shards in the meantime
        write_shard(path, *parts)
        for i in (2, 3):
            (tmp_path / "together" / f"{i:05d}.safetensors").write_bytes((whole / f"{i:05d}.safetensors").read_bytes())

    monkeypatch.setattr(cache, "write_shard", beside)
    found = encode_into(tmp_path / "together", made, data)
    assert (found.whole, found.made) == (True, 32)
    for i in range(4):
        there = [read_shard(place / f"{i:05d}.safetensors").latents for place in (whole, found.folder)]
        assert torch.equal(*there)
