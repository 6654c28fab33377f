"""Labels numbered in another way, in memory or read as they are needed."""

import numpy as np
import pytest
import torch

from unnoise.data.folder import FolderDataset
from unnoise.data.relabel import relabelled
from unnoise.data.shards import ShardsDataset

NAMES = ("ant", "eel", "cat", "bee", "dog")


@pytest.mark.parametrize("kind", ["memory", "shards"])
def test_every_sample_keeps_its_label_by_name(made, tmp_path, kind):
    source = (
        FolderDataset(str(made.folder)) if kind == "memory" else ShardsDataset(str(made.parquet(tmp_path / "shards")))
    )
    data = source.load()
    other = relabelled(data, NAMES)
    assert other.spec.class_names == NAMES
    assert len(other) == len(data)
    assert other.fingerprint() != data.fingerprint()
    assert other.fingerprint() == relabelled(source.load(), NAMES).fingerprint()
    indices = torch.tensor([50, 3, 3, 29])
    for one, two in ((data.take(indices), other.take(indices)), (data.part(), other.part())):
        assert torch.equal(one.x, two.x)
        named = [data.spec.class_names[k] for k in one.labels.tolist()]
        assert [NAMES[k] for k in two.labels.tolist()] == named
    for one, two in zip(data.split(0.3), other.split(0.3), strict=True):
        assert two.spec.class_names == NAMES
        assert torch.equal(one.take(torch.arange(9)).x, two.take(torch.arange(9)).x)
    positions = np.arange(40)
    assert (data.order(5, 4).index_at(positions) == other.order(5, 4).index_at(positions)).all()


def test_the_same_names_and_no_labels_leave_the_data_as_it_is(made):
    data = FolderDataset(str(made.folder)).load()
    assert relabelled(data, data.spec.class_names) is data
    plain = FolderDataset(str(made.folder), labels=False).load()
    assert relabelled(plain, NAMES) is plain
