"""Examples in parts."""

import pytest
import torch

from unnoise.objectives.examples import Draws, Prepared


def examples(cond, **more):
    x = torch.arange(14.0).reshape(7, 2)
    draws = Draws(x + 1, x + 2, x[:, 0].double(), cond, **more)
    return Prepared(x, x[:, 1], cond, x + 3, x[:, 0] + 4, draws)


def flat(value):
    """All tensors of examples with the place where they stand, and who holds none."""
    if isinstance(value, torch.Tensor) or value is None:
        return {"": value}
    items = value.items() if isinstance(value, dict) else value._asdict().items()
    return {f"{name}.{place}": each for name, part in items for place, each in flat(part).items()}


@pytest.mark.parametrize("size", [1, 3, 7, 9])
@pytest.mark.parametrize(
    "made",
    [
        examples(None),
        examples({}),
        examples({"label": torch.arange(7), "text": torch.ones(7, 4)}, importance=torch.arange(7)),
    ],
    ids=["alone", "nothing asked", "conditioned"],
)
def test_all_parts_at_once_are_the_slices_one_by_one(made, size):
    parts = made.split(size)
    assert sum(len(part.inputs) for part in parts) == 7
    for i, part in enumerate(parts):
        expected, found = flat(made.slice(i * size, (i + 1) * size)), flat(part)
        assert expected.keys() == found.keys()
        for place, value in expected.items():
            assert (value is None and found[place] is None) or torch.equal(value, found[place])
