"""Checkpoints of shares that were damaged after they were written."""

import json

import pytest
import torch
from torch import nn

from unnoise.errors import RunFolderError
from unnoise.training.checkpoint import load_checkpoint, newest_whole
from unnoise.training.parallel import ALONE
from unnoise.training.settings import TrainingSettings
from unnoise.training.shares import save_shares
from unnoise.training.state import TrainState


@pytest.fixture
def state():
    """Of a network of a few thousand weights."""
    torch.manual_seed(0)
    return TrainState(nn.Linear(64, 64), TrainingSettings(steps=20))


@pytest.fixture
def saved(tmp_path, state):
    """The checkpoints of steps 10 and 20."""
    found = []
    for step in (10, 20):
        state.step = step
        found.append(save_shares(tmp_path, state, {"said": step}, ALONE))
    return found


def flip(path, places=(2000,)):
    """Changes some bytes of a file, and not its size."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(data)


def test_one_wrong_byte_is_found_and_the_checkpoint_before_is_taken(tmp_path, saved):
    assert newest_whole(tmp_path)[0].step == 20
    [share] = saved[1].glob("__0_*.distcp")
    flip(share)
    found, damaged = newest_whole(tmp_path)
    assert found.step == 10
    assert damaged == [f"000000020.sharded: the checksum of {share.name} does not fit"]
    assert load_checkpoint(saved[1], every_byte=False).step == 20


def test_what_says_where_all_stands_has_a_checksum_too(tmp_path, saved):
    flip(saved[1] / ".metadata", (50,))
    assert newest_whole(tmp_path)[1] == ["000000020.sharded: the checksum of .metadata does not fit"]


def test_without_checksums_a_share_that_cannot_be_read_is_told_in_one_line(tmp_path, saved, state):
    facts = saved[1] / "facts.json"
    about = json.loads(facts.read_text())
    assert about.pop("sums").keys() == {".metadata", "__0_0.distcp"}
    facts.write_text(json.dumps(about))
    [share] = saved[1].glob("__0_*.distcp")
    flip(share, range(0, share.stat().st_size, 7))
    found, damaged = newest_whole(tmp_path)
    assert (found.step, damaged) == (20, [])
    with pytest.raises(
        RunFolderError, match=r"000000020\.sharded cannot be read \(.*\): remove it, and the same command"
    ):
        found.restore(state)
