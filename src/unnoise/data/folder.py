"""A folder of pictures, with their labels and captions where there are any."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from torch import Tensor

from ..errors import DataError
from ..options import option
from ._boxes import boxes_beside
from ._cache import Album, cache_key, load_pictures
from ._captions import find_captions
from ._labels import number_labels
from ._pixels import MEASURED, Picture, check_channels, picture_suffixes
from .augmentation import Augmentation
from .base import Dataset, DataSource, Progress, Spec, datasets
from .label_maps import maps_beside
from .regions import Regions, boxes_of


@datasets.register("folder")
@dataclass(frozen=True)
class FolderDataset(DataSource):
    """The pictures in a folder and the folders below it, in the order of their relative names.

    Every format that Pillow reads. Pictures are turned as their EXIF data says, laid on white where transparent (unless
    channels is 4), resized so that the smaller side has the size (Lanczos), and cropped to the middle. Hidden files are
    left alone; broken ones are skipped and named in `Dataset.skipped`. Captions come from `metadata.jsonl` (file_name,
    text) or from a text file of the same name, when every picture has one. Boxes come from `metadata.jsonl` too, as
    `"objects": {"bbox": [[x, y, width, height], ...], "categories": [...]}` in pixels.

    Args:
        path: The folder.
        size: Side of the squares in pixels. 0: squares of one size up to 256 keep it; otherwise the most common smaller
            side among 1,000 pictures spread over the folder, at most 256, rounded down to a multiple of 8.
        channels: 1 grey, 3 colour, 4 colour and transparency; 0 for 1 if every pixel of every picture is grey, else 3.
        labels: True: the first folder below `path` is the label. "auto": the same, if such folders hold pictures,
            unless there is only one and it holds all.
        cache: Whether the pixels are kept in the user's cache, so that the next load only maps them into memory.
        flips: Whether training sees every other picture mirrored, by chance.
        shift: By how many pixels at most training moves a picture each way.
        maps: A folder with a label map for each picture, a PNG of the same name whose every pixel is the number of a class (255:
            nothing is known); `names.txt` in it may name the classes. "" for none.
    """

    path: str = option(help="the folder of images")
    size: int = option(0, help="side of the square images in pixels; 0 to infer it", low=0, high=4096)
    channels: int = option(0, help="1 grey, 3 colour, 4 with transparency; 0 to infer it", low=0, high=4)
    labels: bool | Literal["auto"] = option("auto", help="whether sub-folders are labels; auto: when there are any")
    cache: bool = option(True, help="keep the decoded pixels in the user's cache")
    flips: bool = option(False, help="mirror every other picture, by chance, whenever it is trained on")
    shift: int = option(0, help="move pictures by up to so many pixels whenever they are trained on", low=0, high=64)
    maps: str = option("", help="a folder with a label map for each picture, a PNG of the same name; empty for none")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_channels(self.channels)

    def load(self, progress: Progress | None = None) -> Dataset:
        """The pictures, uint8 of shape (N, C, size, size), with labels and captions where there are any.

        Raises:
            DataError: The folder does not exist or holds no picture that can be read, or labels are missing for some.
        """
        root = Path(self.path).expanduser()
        pictures, others = find_pictures(root)
        label_names = folder_labels(pictures, self.labels)
        key = cache_key((root / name for name in pictures), "folder", self.size, self.channels) if self.cache else None
        found = load_pictures(self._album(root, pictures), key, progress)
        kept = found.kept()
        names = [pictures[i] for i in kept]
        texts, notes = find_captions(root, names, others)
        labels: Tensor | None = None
        class_names: tuple[str, ...] = ()
        if label_names is not None:
            labels, class_names = number_labels(label_names)
            labels = labels[kept]
        spec = Spec("image", tuple(found.x.shape[1:]), class_names)
        augmentation = Augmentation(self.flips, self.shift)
        regions = self._regions(root, names, others, spec.shape[1:])
        return Dataset(found.x, spec, labels, texts, (*found.skipped, *notes), augmentation, regions)

    def _regions(self, root: Path, names: list[str], others: list[str], size: tuple[int, ...]) -> Regions | None:
        told = boxes_beside(root, names, others)
        boxes, box_names = (None, ()) if told is None else boxes_of(told)
        if not self.maps:
            return None if boxes is None else Regions(boxes, None, box_names)
        maps, map_names = maps_beside(Path(self.maps).expanduser(), names, (size[0], size[1]))
        return Regions(boxes, maps, box_names, map_names)

    def _album(self, root: Path, names: Sequence[str]) -> Album:
        def some(names: Sequence[str]) -> Iterator[Picture]:
            return ((name, root / name) for name in names)

        spread = names[:: -(-len(names) // MEASURED)]
        return Album(lambda: some(names), lambda: some(spread), len(names), self.size, self.channels)


def find_pictures(root: Path) -> tuple[list[str], list[str]]:
    """The pictures and the other files below a folder, by sorted relative name.

    Raises:
        DataError: There is no such folder, or no picture in it.
    """
    if not root.exists():
        raise DataError(f"there is no folder {root}: check data.path")
    if not root.is_dir():
        raise DataError(f"{root} is a file, and a folder of images was expected: give the folder that holds it")
    pictures: list[str] = []
    others: list[str] = []
    suffixes = picture_suffixes()
    for name in _files_below(root):
        (pictures if PurePath(name).suffix.lower() in suffixes else others).append(name)
    if not pictures:
        raise DataError(f"there are no images in {root}: {_found(others)}; give a folder of PNG or JPEG files")
    return sorted(pictures), sorted(others)


def folder_labels(names: Sequence[str], wanted: bool | Literal["auto"]) -> list[str] | None:
    """The first folder of each picture, or None without labels.

    Args:
        names: Of the pictures, relative to the folder of all.
        wanted: As `FolderDataset.labels`.

    Raises:
        DataError: Some pictures lie in no folder, and others do.
    """
    if wanted is False:
        return None
    folders = [PurePosixPath(name).parts[0] if "/" in name else None for name in names]
    outside = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    if wanted == "auto" and (len(outside) == len(names) or (not outside and len(set(folders)) == 1)):
        return None
    if outside:
        raise DataError(
            f"labels missing for {len(outside)} of {len(names)} images, e.g. {outside[0]}: "
            "move them into a label folder or set data.labels=false"
        )
    return [folder for folder in folders if folder is not None]


def _files_below(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link to a folder above would go round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        relative = os.path.relpath(here, root)
        yield from (PurePath(relative, name).as_posix() for name in files if not name.startswith("."))


def _found(names: Sequence[str]) -> str:
    kinds = Counter(PurePath(name).suffix.lower() or "files without an ending" for name in names)
    listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5))
    return f"it holds {listed}" if listed else "it is empty"
