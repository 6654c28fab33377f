"""Processes that share batches out see together what one would, and each reads its own shards."""

import numpy as np
import torch

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.shards import ShardsDataset
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.objectives.mse import MSEObjective
from unnoise.process.linear import LinearSchedule
from unnoise.training.draws import DrawStream


def test_two_processes_see_the_batches_of_one_and_read_half_of_the_shards_each(made, tmp_path):
    data = ShardsDataset(str(made.tar(tmp_path / "tar", each=5)), mixing=4, window=4, label_column="").load()
    parts = data, IdentityCodec.pixels(), NoiseDenoiser(None, LinearSchedule()), MSEObjective(), 12, 0
    whole, *shares = (DrawStream(*parts, share=share) for share in (None, (0, 6), (6, 12)))
    cpu = torch.device("cpu")
    for step in range(5):
        expected = whole.step(step, cpu).inputs
        assert torch.equal(torch.cat([share.step(step, cpu).inputs for share in shares]), expected)
    read = []
    for share in shares:
        positions = np.concatenate([np.arange(12 * step, 12 * step + 12)[slice(*share.share)] for step in range(5)])
        read.append(set(data.places(share.order.index_at(positions))[0].tolist()))
    assert set.union(*read) == set(range(12))
    assert not set.intersection(*read)
