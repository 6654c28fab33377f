"""What CLIP learns: against torch's own cross-entropy, and with captions that two pictures share."""

import torch
from torch.nn.functional import cross_entropy, normalize

from unnoise.objectives.contrast import contrastive_losses


def points(n=6, dim=5):
    generator = torch.Generator().manual_seed(0)
    return tuple(normalize(torch.randn(n, dim, dtype=torch.float64, generator=generator), dim=1) for _ in range(2))


def test_it_is_the_mean_of_two_cross_entropies():
    pictures, texts = points()
    scale, own = torch.tensor(7.0, dtype=torch.float64), torch.eye(6, dtype=torch.bool)
    scores, right = scale * pictures @ texts.T, torch.arange(6)
    expected = (cross_entropy(scores, right, reduction="none") + cross_entropy(scores.T, right, reduction="none")) / 2
    torch.testing.assert_close(contrastive_losses(pictures, texts, scale, own), expected)


def test_a_caption_that_two_share_is_held_against_neither():
    pictures, texts = points()
    texts[3] = texts[1]
    same = torch.eye(6, dtype=torch.bool)
    same[1, 3] = same[3, 1] = True
    scale = torch.tensor(7.0, dtype=torch.float64)
    found = contrastive_losses(pictures, texts, scale, same)
    for one, other in ((1, 3), (3, 1)):
        kept = [i for i in range(6) if i != other]
        alone = contrastive_losses(pictures[kept], texts[kept], scale, torch.eye(5, dtype=torch.bool))
        torch.testing.assert_close(found[one], alone[kept.index(one)])
    assert torch.isfinite(found).all()


def test_what_tells_nothing_apart_costs_the_logarithm_of_the_batch():
    nothing = torch.ones(8, 3) / 3**0.5
    found = contrastive_losses(nothing, nothing, torch.tensor(10.0), torch.eye(8, dtype=torch.bool))
    torch.testing.assert_close(found, torch.full((8,), 8.0).log())
