"""Latents of a data set, encoded once and read by every run after that: a folder of shards, and a file about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.autoencoder import AutoencoderCodec
from ..codecs.stored import StoredLatents, StoredMirror
from ..data.augmentation import Augmentation
from ..data.base import AnyDataset, Dataset, Progress, Spec
from ..data.latents import LatentDataset, read_shard, write_shard
from ..errors import DataError
from ..files import cache_folder, write_atomically
from ..training.parallel import told_by_torchrun

ABOUT = "latents.json"
ROWS = 1024
"""Samples of a shard, which is what kill -9 may lose."""


@dataclass(frozen=True)
class Contents:
    """What latents are of: those of the same contents are the same.

    Args:
        codec: Hash of the codec.
        data: Fingerprint of the data set.
        count: How many samples it has.
        channels: Channels of the latents.
        mirrored: Whether those of mirror images stand beside them.
        spread: Whether standard deviations do.
        tile: The side of the tiles that they were worked out in; 0 where samples were worked on whole.
    """

    codec: str
    data: str
    count: int
    channels: int
    mirrored: bool = False
    spread: bool = False
    tile: int = 0

    @property
    def place(self) -> Path:
        """Where they are kept if nobody says where, in the user's cache."""
        text = json.dumps(asdict(self), sort_keys=True)
        return cache_folder() / "latents" / hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def shards(self) -> list[range]:
        """The samples of each shard."""
        return [range(first, min(first + ROWS, self.count)) for first in range(0, self.count, ROWS)]


@dataclass(frozen=True)
class Latents:
    """What training learns in the place of the data.

    Args:
        data: The latents, with the labels and captions of the samples.
        codec: Takes out of them what is learned.
    """

    data: AnyDataset
    codec: StoredLatents


@dataclass(frozen=True)
class Encoded:
    """What became of a folder of latents.

    Args:
        folder: Where they are.
        contents: What they are of.
        made: How many samples were encoded now.
        whole: Whether all are there.
    """

    folder: Path
    contents: Contents
    made: int
    whole: bool


def contents_of(codec: AutoencoderCodec, data: AnyDataset, mirrored: bool | None = None) -> Contents:
    """What has to be kept of a data set so that a run with this codec can read it.

    Args:
        codec: Of the run.
        data: All of it, before any is held out.
        mirrored: Whether mirror images are wanted too; by default as the data is augmented.
    """
    shape = codec.shape(data.spec.shape)
    spread = codec.posterior == "sample" and codec.network.variational
    tile = codec.tile if codec.tile and max(shape[1:]) > codec.tile else 0
    wanted = data.augmentation.flips if mirrored is None else mirrored
    return Contents(codec.hash, data.fingerprint(), len(data), shape[0], wanted, spread, tile)


def encode_into(
    folder: str | Path | None,
    codec: AutoencoderCodec,
    data: AnyDataset,
    *,
    mirrored: bool | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Encoded:
    """Encodes a data set into a folder; what is there already is not done again, so that the same call goes on.

    Args:
        folder: Made if missing; None is a place in the user's cache.
        codec: What encodes.
        data: All of it, before any is held out.
        mirrored: Whether mirror images are encoded too; by default as the data is augmented.
        device: Where; on the processor by default.
        progress: Told how many samples are there, and how many there will be.
        stop: Asked between shards; when true, what is done stays.

    Raises:
        DataError: The folder holds latents of something else, or the data cannot be read.
        OSError: The disk is full, or may not be written to; what is done stays.
    """
    contents = contents_of(codec, data, mirrored)
    place = contents.place if folder is None else Path(folder).expanduser()
    known = _known(place, contents)
    place.mkdir(parents=True, exist_ok=True)
    if known is None:
        write_atomically(place / ABOUT, (json.dumps(asdict(contents), indent=1) + "\n").encode())
    contents = known or contents
    todo = [(i, rows) for i, rows in enumerate(contents.shards) if not _file(place, i).is_file()]
    done = contents.count - sum(len(rows) for _, rows in todo)
    made = 0
    there = codec if device is None else codec.on(device, torch.float32)
    processes = told_by_torchrun()
    begin, _ = processes.share(len(todo)) if len(todo) >= processes.count else (0, 0)
    for i, rows in (*todo[begin:], *todo[:begin]):  # several begin at different places and leave out what others did
        if _file(place, i).is_file():
            done += len(rows)
            continue
        if stop():
            return Encoded(place, contents, made, whole=False)
        some = data.take(torch.arange(rows.start, rows.stop))
        write_shard(_file(place, i), _encoded(there, some.x, contents), some.labels, some.texts)
        made += len(rows)
        if progress is not None:
            progress("encoding the data", done + made, contents.count)
    return Encoded(place, contents, made, whole=True)


def latents_of(
    codec: AutoencoderCodec,
    data: AnyDataset,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Latents | None:
    """The latents of a data set as a run learns them, encoded now where they are not kept; None where they cannot be kept.

    Args:
        codec: Of the run, which says where they are.
        data: All of it, before any is held out.
        device: Where they are encoded.
        progress: Told how many samples are encoded, and how many will be.

    Raises:
        DataError: The folder that the codec names holds latents of something else.
    """
    if (
        codec.latents == "none" or data.augmentation.shift
    ):  # of every place to which a picture is moved there are others
        return None
    folder = None if codec.latents == "auto" else codec.latents
    found = encode_into(folder, codec, data, device=device, progress=progress)
    contents = found.contents
    shards = [read_shard(_file(found.folder, i)) for i in range(len(contents.shards))]
    spec = Spec("array", tuple(shards[0].latents.shape[1:]), data.spec.class_names)
    if data.augmentation.flips:
        augmentation: Augmentation = StoredMirror()
    else:
        augmentation = Augmentation()
    if isinstance(data, Dataset):  # in memory, as it was
        x = torch.cat([shard.latents for shard in shards])
        kept: AnyDataset = replace(data, x=x, spec=spec, augmentation=augmentation)
    else:
        kept = LatentDataset(tuple(shards), spec, augmentation=augmentation)
    return Latents(kept, StoredLatents(contents.channels, contents.spread, codec.posterior == "sample"))


def _encoded(codec: AutoencoderCodec, x: Tensor, contents: Contents) -> Tensor:
    """All that is kept of some samples, shape (B, kept channels, *places), float16."""
    kept = []
    for each in (x, x.flip(-1)) if contents.mirrored else (x,):
        mean, std = codec.moments(each)
        kept += [mean, std] if contents.spread and std is not None else [mean]
    return torch.cat(kept, dim=1).to("cpu", torch.float16)


def _file(folder: Path, i: int) -> Path:
    return folder / f"{i:05d}.safetensors"


def _known(folder: Path, wanted: Contents) -> Contents | None:
    """What a folder of latents is of, which may be more than is wanted; None where there are none yet."""
    file = folder / ABOUT
    if not file.is_file():
        if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
            raise DataError(f"{folder} is no folder of latents, and not empty: give another one")
        return None
    try:
        found = Contents(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}): remove the folder, and encode again") from None
    again = f"encode into another folder (`unnoise encode ... -o DIR`), or remove {folder}"
    if found.codec != wanted.codec:
        raise DataError(
            f"the latents in {folder} were made by another codec ({found.codec[:12]}, and this one is {wanted.codec[:12]}): {again}"
        )
    if (found.data, found.count) != (wanted.data, wanted.count):
        raise DataError(f"the latents in {folder} are those of other data: {again}")
    for name, what in (("mirrored", "mirror images, which data.flips shows"), ("spread", "variances to draw from")):
        if getattr(wanted, name) and not getattr(found, name):
            raise DataError(f"the latents in {folder} know no {what}: {again}")
    if found.tile != wanted.tile:
        raise DataError(f"the latents in {folder} were made in tiles of {found.tile}, not {wanted.tile}: {again}")
    return found
