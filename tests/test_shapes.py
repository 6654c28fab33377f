"""Times meet batches in one place, and never along a wrong axis."""

import pytest
import torch

from unnoise.errors import ShapeError
from unnoise.shapes import match, over, per_sample


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 2, 3), (3, 1, 2, 3)])
def test_a_value_for_each_sample_multiplies_that_sample(shape):
    shaped = over(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.ones(shape))
    assert shaped.shape == (3, *[1] * (len(shape) - 1))
    assert shaped.dtype == torch.float32
    product = shaped * torch.ones(shape)
    assert product.shape == shape
    for i in range(3):
        assert bool((product[i] == i + 1).all())


def test_one_value_is_for_all():
    assert over(torch.tensor(2.0), torch.ones(3, 3)).shape == ()
    assert per_sample(torch.tensor(2.0), torch.ones(3, 3)).tolist() == [2.0, 2.0, 2.0]
    assert per_sample(torch.tensor([1.0, 2.0]), torch.ones(2, 3)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("values", [(1,), (2,), (3, 1), (1, 3), (4,)])
@pytest.mark.parametrize("function", [over, per_sample])
def test_anything_else_is_refused_with_the_shapes_in_the_message(function, values):
    with pytest.raises(ShapeError, match=r"expected shape \(\) or \(3,\) to match x \(3, 4\), got"):
        function(torch.zeros(values), torch.zeros(3, 4))


def test_partners_must_have_one_shape():
    match("eps", torch.zeros(2, 3), torch.ones(2, 3))
    for shape in ((2, 1), (1, 3), (3,), (2, 3, 1)):
        with pytest.raises(ShapeError, match=r"expected eps of shape \(2, 3\), as x, got"):
            match("eps", torch.zeros(shape), torch.ones(2, 3))
