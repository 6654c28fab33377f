"""Blocks of samples on disk."""

import pytest
import torch

from unnoise.errors import RunFolderError
from unnoise.recipes.judging.blocks import Block, BlockFolder, block_size, blocks


def test_blocks_cover_every_sample_once():
    assert blocks(25, 10) == [Block(0, 10), Block(10, 10), Block(20, 5)]
    assert sum(block.count for block in blocks(1000, 7)) == 1000


@pytest.mark.parametrize(("shape", "size"), [((2,), 500), ((3, 32, 32), 341), ((3, 256, 256), 8)])
def test_the_size_of_a_block_depends_on_the_shape_alone(shape, size):
    assert block_size(shape) == size


def test_what_was_written_is_read_in_any_smaller_number(tmp_path):
    folder, x = BlockFolder(tmp_path / "samples", 10), torch.arange(25 * 3, dtype=torch.float32).reshape(25, 3)
    for block in blocks(25, 10):
        folder.write(block, x[block.first : block.first + block.count])
    assert torch.equal(folder.all(25), x)
    assert torch.equal(folder.all(13), x[:13])
    assert folder.missing(25) == []
    assert folder.missing(28) == [Block(20, 8)]  # the last block is there, but is too short


def test_a_damaged_block_is_made_again_and_never_read(tmp_path):
    folder = BlockFolder(tmp_path, 4)
    folder.write(Block(0, 4), torch.zeros(4, 2))
    folder.write(Block(4, 4), torch.zeros(4, 2))
    path = tmp_path / "00000004.npy"
    path.write_bytes(path.read_bytes()[:-9])
    assert folder.missing(8) == [Block(4, 4)]
    with pytest.raises(RunFolderError, match="same command"):
        folder.all(8)
