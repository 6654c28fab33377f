"""Whether what belongs together is found: places by hand, ties, chance, and labels by name."""

import pytest
import torch
from torch.nn.functional import normalize

from unnoise.errors import BadOption, ShapeError
from unnoise.evaluation.retrieval import ranks, retrieval, zero_shot


def test_places_are_counted_from_one_and_ties_share():
    queries = torch.eye(3)
    others = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert ranks(queries, others).tolist() == [2.5, 1.5, 1.0]  # 1, 2, 1 for the first; 0, 1, 1 for the second; 0, 0, 1
    with pytest.raises(ShapeError, match=r"expected pairs of shape \(n, dim\)"):
        ranks(queries, others[:2])


def test_what_is_the_same_is_always_found_and_noise_by_chance():
    generator = torch.Generator().manual_seed(0)
    one, other = normalize(torch.randn(2, 2000, 16, generator=generator), dim=2)
    perfect, guessed = retrieval(one, one, 100), retrieval(one, other, 100)
    assert (perfect.first.value, perfect.rank, perfect.among, perfect.first.trials) == (1.0, 1.0, 100, 2000)
    assert guessed.first.low <= guessed.chance == 0.01 <= guessed.first.high
    assert guessed.among_five.low <= 0.05 <= guessed.among_five.high
    assert guessed.rank == pytest.approx(50.5, abs=3)
    assert retrieval(one[:30], other[:30], 100).among == 30
    assert retrieval(one[:250], other[:250], 100).first.trials == 200  # whole hundreds only
    with pytest.raises(BadOption, match="at least 2 pairs to choose from, got 1"):
        retrieval(one, other, 1)


def test_a_label_is_the_one_whose_name_lies_nearest():
    names = torch.eye(3)
    found = zero_shot(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.1, 0.7], [0.6, 0.5, 0.0]]), names, torch.tensor([0, 2, 1]))
    assert found.value == pytest.approx(2 / 3)
    assert found.trials == 3
