"""The sizes of pictures as they lie, and what was made of them, for those who gave no size."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ._pixels import MEASURED, bombs_refused, formats
from .base import AnyDataset, DataSource
from .folder import FolderDataset, find_pictures
from .shards import some_records
from .streaming.dataset import ShardedDataset

_SHOWN = 3


def told_sizes(source: DataSource, data: AnyDataset) -> str | None:
    """What sizes the pictures of a folder or of shards have and what was made of them, in a line.

    Args:
        source: Where they lie.
        data: As the source loads them.

    Returns:
        The line; None where every picture has the size of the samples, or the data is of another kind.

    Raises:
        DataError: They cannot be read any more.
    """
    if data.spec.kind != "image":
        return None
    pictures: Iterable[bytes | Path]
    if isinstance(data, ShardedDataset):
        pictures = [record.value for record in some_records(data.reader) if isinstance(record.value, bytes)]
    elif isinstance(source, FolderDataset):
        root = Path(source.path).expanduser()
        names = find_pictures(root)[0]
        pictures = [root / name for name in names[:: -(-len(names) // MEASURED)]]
    else:
        return None
    sizes = _sizes(pictures)
    height, width = data.spec.shape[1:]
    if not sizes or sizes.keys() == {(width, height)}:
        return None
    listed = ", ".join(f"{w} x {h} ({count:,})" for (w, h), count in sizes.most_common(_SHOWN))
    rest = len(sizes) - _SHOWN
    more = f" and {rest:,} more {'size' if rest == 1 else 'sizes'}" if rest > 0 else ""
    looked = sum(sizes.values())
    whole = "" if looked >= len(data) else f", by {looked:,} of the {len(data):,} pictures"
    return (
        f"{listed}{more}{whole}: each was scaled until its smaller side was {min(height, width)}, and its middle kept; "
        "data.size=64 takes another side when training"
    )


def _sizes(pictures: Iterable[bytes | Path]) -> Counter[tuple[int, int]]:
    """How many pictures there are of each width and height, by their headers."""
    found: Counter[tuple[int, int]] = Counter()
    with bombs_refused():
        for each in pictures:
            try:
                with Image.open(io.BytesIO(each) if isinstance(each, bytes) else each, formats=formats()) as image:
                    found[image.size] += 1
            except Exception:  # a broken file is named when it is decoded
                continue
    return found
