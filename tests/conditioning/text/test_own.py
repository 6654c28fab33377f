"""Our own text encoder: before it has learned anything, it tells which word stands before which, where neighbours are mixed in."""

import pytest
import torch

from unnoise.conditioning.text.own import Neighbours, OwnTextConfig, OwnTextEncoder
from unnoise.data.scenes.scene import SHAPES
from unnoise.data.shapes import ShapesDataset

SIDES = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}


def captions(number):
    """Captions of two things as tokens, and of each thing the place of its noun and the side on which it stands."""
    source = ShapesDataset(one=0.0, alike=0.0, sides_said=1.0, captions="short")
    pictures = source.pictures(range(number))
    texts = [picture.caption.split() for picture in pictures]
    words = ["", *sorted({word for text in texts for word in text})]
    ids, nouns = torch.zeros(number, 16, dtype=torch.int64), torch.zeros(number, 2, dtype=torch.int64)
    sides = torch.zeros(number, 2, 2)
    for row, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
        ids[row, : len(text)] = torch.tensor([words.index(word) for word in text])
        nouns[row] = torch.tensor([i for i, word in enumerate(text) if word in SHAPES])
        side = torch.tensor(SIDES[picture.said.relation])
        sides[row] = torch.stack([side, -side])
    return len(words), ids, nouns, sides


def share_read_right(neighbours):
    """How often the side of a thing can be read off the state of its noun by a linear map, in captions it was not fitted to."""
    vocabulary, ids, nouns, sides = captions(1600)
    torch.manual_seed(0)
    encoder = OwnTextEncoder(OwnTextConfig(vocabulary, 16, 128, 2, 4, neighbours)).eval()
    with torch.no_grad():
        states = encoder(ids, ids != 0)
    states = states.gather(1, nouns[..., None].expand(-1, -1, 128)).flatten(0, 1).double()  # (2 captions, width)
    wanted = sides.flatten(0, 1).double()
    fitted, fresh = slice(0, 2400), slice(2400, None)
    gram = states[fitted].T @ states[fitted] + 0.1 * torch.eye(128, dtype=torch.float64)
    read = states[fresh] @ torch.linalg.solve(gram, states[fitted].T @ wanted[fitted])
    told = wanted[fresh] != 0
    return float((read.sign() == wanted[fresh])[told].double().mean())


def test_sides_can_be_read_off_an_encoder_that_has_learned_nothing():
    assert share_read_right(neighbours=6) > 0.98
    assert share_read_right(neighbours=0) < 0.75


def test_neighbours_are_weighted_by_their_distance():
    torch.manual_seed(1)
    layer, x = Neighbours(3, 2), torch.randn(1, 6, 3)
    mask = torch.tensor([[True] * 5 + [False]])
    weights = layer.mix.weight[:, 0]  # (width, 5)
    wanted = x.clone()
    for token in range(6):
        for offset in range(-2, 3):
            if 0 <= token + offset < 5:
                wanted[0, token] += weights[:, offset + 2] * x[0, token + offset]
    torch.testing.assert_close(layer(x, mask), wanted)


@pytest.mark.parametrize("neighbours", [1, 6, 20])
def test_padding_is_not_looked_at(neighbours):
    torch.manual_seed(0)
    encoder = OwnTextEncoder(OwnTextConfig(9, 12, 16, 1, 2, neighbours)).eval()
    ids = torch.randint(9, (2, 12))
    mask = torch.arange(12).expand(2, -1) < 7
    with torch.no_grad():
        whole, short = encoder(ids, mask), encoder(ids[:, :7], mask[:, :7])
    torch.testing.assert_close(whole[:, :7], short, rtol=1e-5, atol=1e-6)
