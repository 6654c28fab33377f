"""Arrays that grow block by block on disk, each block whole or not there: what was made once is never made again."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import RunFolderError
from ...files import write_atomically

VALUES_AT_ONCE = 2**20
"""Of a block: enough that its file costs nothing, few enough that little is lost when a machine stops."""


def block_size(shape: tuple[int, ...]) -> int:
    """Samples of a block: a function of their shape alone, so that every machine cuts a run at the same places."""
    return max(8, min(500, VALUES_AT_ONCE // math.prod(shape)))


@dataclass(frozen=True)
class Block:
    """Some samples in a row.

    Args:
        first: The number of the first.
        count: How many.
    """

    first: int
    count: int


def blocks(n: int, size: int) -> list[Block]:
    """The blocks of n samples; the last may be short."""
    return [Block(first, min(size, n - first)) for first in range(0, n, size)]


class BlockFolder:
    """A folder of .npy files, one for each block.

    Args:
        folder: Made when something is written.
        size: Samples of a whole block.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def _path(self, block: Block) -> Path:
        return self.folder / f"{block.first:08d}.npy"

    def read(self, block: Block) -> Tensor | None:
        """The first samples of a block, mapped from disk; None where there are not as many, or the file is damaged."""
        try:
            found = np.load(self._path(block), mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return None if len(found) < block.count else torch.from_numpy(found[: block.count])

    def write(self, block: Block, values: Tensor) -> None:
        """Writes a block, whole or not at all.

        Raises:
            OSError: The disk is full, or may not be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.save(stream, values.detach().cpu().contiguous().numpy(), allow_pickle=False)
        write_atomically(self._path(block), stream.getvalue())

    def missing(self, n: int) -> list[Block]:
        """The blocks of the first n samples that are not there."""
        return [block for block in blocks(n, self.size) if self.read(block) is None]

    def _parts(self, n: int) -> Iterator[Tensor]:
        for block in blocks(n, self.size):
            found = self.read(block)
            if found is None:
                raise RunFolderError(f"{self._path(block)} is missing or damaged: give the same command again")
            yield found

    def all(self, n: int) -> Tensor:
        """The first n samples, shape (n, ...).

        Raises:
            RunFolderError: Some are not there.
        """
        return torch.cat(list(self._parts(n)))
