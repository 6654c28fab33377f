"""Pictures are mirrored and moved by a function of seed and position, and of nothing else."""

import numpy as np
import torch
from scipy.stats import binomtest, chisquare

from unnoise.data.augmentation import Augmentation

X = torch.arange(6 * 3 * 5 * 7, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(6, 3, 5, 7)


def test_nothing_is_done_unless_it_is_asked_for():
    assert Augmentation().apply(X, 0, np.arange(6)) is X


def test_each_picture_is_itself_or_its_mirror_image_about_as_often():
    x = X[:1].expand(4000, -1, -1, -1)
    seen = Augmentation(flips=True).apply(x, 0, np.arange(4000))
    same, mirrored = (seen == X[0]).flatten(1).all(1), (seen == X[0].flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert binomtest(int(mirrored.sum()), 4000).pvalue > 1e-4


def test_a_shift_moves_by_whole_pixels_each_way_as_numpy_pads():
    seen = Augmentation(shift=2).apply(X[:1].expand(5000, -1, -1, -1), 0, np.arange(5000)).numpy()
    padded = np.pad(X[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
    cuts = {padded[:, r : r + 5, c : c + 7].tobytes(): (r, c) for r in range(5) for c in range(5)}
    counts = np.zeros((5, 5))
    for each in seen:
        counts[cuts[each.tobytes()]] += 1
    assert chisquare(counts.reshape(-1)).pvalue > 1e-4


def test_what_a_position_sees_does_not_depend_on_the_others():
    augmentation = Augmentation(flips=True, shift=1)
    whole = augmentation.apply(X, 7, np.arange(10, 16))
    for i in range(6):
        assert torch.equal(augmentation.apply(X[i : i + 1], 7, np.array([10 + i])), whole[i : i + 1])
    assert not torch.equal(augmentation.apply(X, 7, np.arange(16, 22)), whole)
    assert not torch.equal(augmentation.apply(X, 8, np.arange(10, 16)), whole)
