"""Laws of the learning rate."""

import math

import pytest

from unnoise.training.rates import Progress, learning_rates


def at(law, done, warm=0.0, end=1000.0):
    return learning_rates.build(law).at(Progress(warm + done * (end - warm), warm, end))


@pytest.mark.parametrize("name", list(learning_rates))
def test_every_law_warms_up_to_its_peak_in_a_line_and_is_never_more(name):
    law = learning_rates.build(name)
    warming = [law.at(Progress(now, 10, 1000)) for now in range(10)]
    assert warming == pytest.approx([(now + 1) / 10 for now in range(10)])
    after = [law.at(Progress(now, 10, 1000)) for now in range(10, 1001)]
    assert after[0] == pytest.approx(1.0)
    assert all(0 <= later <= earlier <= 1 for earlier, later in zip(after, after[1:], strict=False))


def test_laws_at_known_places():
    assert at("constant", 1.0) == 1.0
    assert at("linear", 0.25, warm=200.0) == pytest.approx(0.75)
    assert at({"name": "linear", "floor": 0.1}, 1.0) == pytest.approx(0.1)
    assert at("cosine", 1 / 3) == pytest.approx(0.75)
    assert at({"name": "cosine", "floor": 0.2}, 0.5) == pytest.approx(0.6)
    assert at({"name": "inverse_sqrt", "reference": 100.0}, 0.1) == 1.0
    assert at({"name": "inverse_sqrt", "reference": 100.0}, 0.9) == pytest.approx(1 / 3)
    assert at({"name": "trapezoid", "share": 0.5}, 0.5) == 1.0
    assert at({"name": "trapezoid", "share": 0.5}, 0.625) == pytest.approx(0.5)
    assert at({"name": "trapezoid", "share": 0.5, "shape": "linear", "floor": 0.1}, 0.75) == pytest.approx(0.55)
    assert at({"name": "trapezoid", "share": 0.0}, 1.0) == 1.0


def test_a_warm_up_and_a_fall_that_overlap_are_multiplied():
    law = learning_rates.build({"name": "inverse_sqrt", "reference": 25.0})
    rates = [law.at(Progress(now, 100, 1000)) for now in range(400)]
    assert rates[24] == 0.25
    assert rates[35] == pytest.approx(0.36 / math.sqrt(35 / 25))
    assert rates[98:102] == pytest.approx([0.99 / math.sqrt(98 / 25), 1 / math.sqrt(99 / 25), 0.5, math.sqrt(25 / 101)])
    # It rises linearly to the reference, with the root of the updates to the end of the warm-up, and then falls.
    assert max(abs(after - before) for before, after in zip(rates, rates[1:], strict=False)) == pytest.approx(0.01)
    at_the_end = learning_rates.build({"name": "inverse_sqrt", "reference": 100.0})
    warming = [at_the_end.at(Progress(now, 100, 1000)) for now in range(101)]
    assert warming == [min((now + 1) / 100, 1.0) for now in range(101)]


def test_in_images_a_law_does_not_change_with_the_batch():
    law = learning_rates.build({"name": "inverse_sqrt", "reference": 5000.0})
    small = [law.at(Progress(32 * step, 1000, 64000), 32) for step in range(2000)]
    large = [law.at(Progress(64 * step, 1000, 64000), 64) for step in range(1000)]
    assert small[40::2] == pytest.approx(large[20:])
    assert small[1::2][:15] == pytest.approx(large[:15])  # the first updates that end at the same images
    assert math.isclose(small[-1], math.sqrt(5000 / (32 * 1999)))
