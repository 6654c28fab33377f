"""Labels, by number and by name."""

import pytest
import torch

from unnoise.conditioning.label import LabelConditioning
from unnoise.errors import BadOption

LABELS = LabelConditioning(("cat", "dog", "7"))


def test_numbers_names_and_nothing_are_encoded():
    encoded = LABELS.encode(["dog", 0, "1", None])
    assert encoded.tolist() == [1, 0, 1, 3]
    assert encoded.dtype == torch.int64
    assert LABELS.condition(["cat"])["label"].tolist() == [0]
    assert LABELS.null == 3


def test_a_name_goes_before_a_number():
    assert LABELS.number("7") == 2


@pytest.mark.parametrize("request_", ["cow", "dgo", 3, -1, "3", "-1", "--1", "\N{SUPERSCRIPT TWO}", "1.5", ""])
def test_what_the_model_does_not_know_is_refused_with_what_it_knows(request_):
    with pytest.raises(BadOption, match=r"label: the model knows no label .*cat"):
        LABELS.number(request_)


def test_a_near_name_is_suggested():
    with pytest.raises(BadOption, match="did you mean 'dog'"):
        LABELS.number("dgo")


def test_a_model_without_labels_says_so():
    with pytest.raises(BadOption, match="trained without labels"):
        LabelConditioning(()).number(0)


@pytest.mark.parametrize("request_", ["1", "0", "-1", "100"])
def test_where_names_are_numbers_another_number_is_not_the_place_of_a_class(request_):
    conditioning = LabelConditioning(("10", "20", "30"))
    assert conditioning.number("20") == 1
    assert conditioning.number(1) == 1
    with pytest.raises(BadOption, match=f"knows no label '{request_}'.*20"):
        conditioning.number(request_)
