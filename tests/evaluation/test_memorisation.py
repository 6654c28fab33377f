import json
import math

import pytest
import torch

from unnoise.data.digits import DigitsDataset
from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation._neighbourhood import distinct, sameness, some
from unnoise.evaluation.memorisation import Compared, copying, memorisation
from unnoise.evaluation.metrics.base import Cloud

DIGITS = DigitsDataset().load()


def mixture(seed, num, width=6):
    """Draws from twenty Gaussians, which are the same for every seed."""
    means = 3 * torch.randn(20, width, generator=torch.Generator().manual_seed(999))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(20, (num,), generator=generator)
    return means[which] + 0.5 * torch.randn(num, width, generator=generator)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TRAIN, HELD_OUT = mixture(0, 1000), mixture(1, 500)


def test_exact_copies_are_copies_of_what_they_are():
    chosen = torch.arange(900, 400, -1)
    found = copying(TRAIN[chosen], TRAIN, HELD_OUT)
    assert found.verdict == "copies"
    assert (found.copies.value, found.nearer.value) == (1.0, 1.0)
    assert torch.equal(found.indices, chosen)
    assert not found.distances.any()
    assert not found.ratios.any()
    assert found.sentence.startswith(
        "Copies: 100 % (99.2 to 100 %) of 500 samples lie three times nearer to one training"
    )


def test_copies_with_a_little_noise_are_copies():
    found = copying(TRAIN[:300] + 0.01 * noise(0, 300, 6), TRAIN, HELD_OUT)
    assert found.verdict == "copies"
    assert found.copies.low > 0.97
    assert torch.equal(found.indices, torch.arange(300))


def test_half_copies_are_half():
    made = torch.cat([TRAIN[:250] + 0.01 * noise(0, 250, 6), mixture(2, 250)])
    for held_out in (HELD_OUT, None):
        found = copying(made, TRAIN, held_out)
        assert found.verdict == "copies"
        assert found.copies.low < 0.5 + found.baseline.value / 2 < found.copies.high
        assert found.excess.low < 0.5 < found.excess.high


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("width", [2, 10])
def test_fresh_draws_raise_no_false_alarm(width, held_out):
    alarms, near, shares, expected = 0, 0, [], []
    for seed in range(100):
        real = mixture(3 * seed + 1, 200, width) if held_out else None
        found = copying(mixture(3 * seed, 200, width), mixture(3 * seed + 2, 400, width), real)
        alarms, near = alarms + (found.verdict == "copies"), near + found.is_nearer
        shares.append(found.nearer.value)
        expected.append(found.expected.value)
    assert alarms <= 5
    assert near <= 5
    # One share and its threshold, in 200 draws each: standard deviation 2.2 %, and a tenth of that for the mean of 100.
    assert sum(shares) / 100 == pytest.approx(sum(expected) / 100, abs=0.01)


def test_in_the_plane_the_ratio_is_what_geometry_says():
    # Points at random: the nearest lies within the third of the second's way in one of nine cases.
    points = torch.rand(6000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = copying(points[:1000], points[1000:5000], points[5000:])
    assert found.copies.low < 1 / 9 < found.copies.high
    assert found.baseline.low < 1 / 9 < found.baseline.high
    assert found.verdict == "no sign of copying"
    assert found.expected.value == 50 / 1001


@pytest.mark.parametrize("held_out", [HELD_OUT, None])
def test_duplicates_in_the_training_data_do_not_hide_copies(held_out):
    made = TRAIN[:300] + 0.01 * noise(0, 300, 6)
    exact = TRAIN.repeat(12, 1)
    near = torch.cat([TRAIN + 1e-4 * noise(i, 1000, 6) for i in range(3)])
    plain = copying(made, TRAIN, held_out)
    for train in (exact, near, torch.cat([exact, near])):
        found = copying(made, train, held_out)
        assert found.verdict == "copies"
        assert found.copies.value == pytest.approx(plain.copies.value, abs=0.01)
        assert found.baseline.value == pytest.approx(plain.baseline.value, abs=0.02)
    assert "11,000 exact duplicates" in copying(made, exact, held_out).notes[0]
    assert (copying(made, exact, held_out).indices < 1000).all()  # the first of them all


def test_units_change_nothing():
    made = torch.cat([TRAIN[:50] + 0.2 * noise(0, 50, 6), mixture(2, 50)])
    one = copying(made, TRAIN, HELD_OUT)
    for scale in (2.0**-12, 2.0**12):
        other = copying(made * scale, TRAIN * scale, HELD_OUT * scale)
        assert torch.equal(other.ratios, one.ratios)
        assert torch.equal(other.distances, one.distances * scale)
        assert (other.copies, other.nearer, other.verdict) == (one.copies, one.nearer, one.verdict)


def test_the_second_criterion_sees_what_the_first_does_not():
    # Half the way from fresh draws to their neighbours: no copies, but nearer than any data.
    fresh = mixture(2, 500, 10)
    train, held_out = mixture(0, 1000, 10), mixture(1, 500, 10)
    nearest = train[copying(fresh, train, held_out).indices]
    found = copying(fresh + 0.5 * (nearest - fresh), train, held_out)
    assert found.copies.value < 0.2
    assert found.nearer.value > 0.9
    assert found.is_nearer
    assert "nearer to the training data than the nearest 5 % of held-out data" in found.sentence


def test_too_few_samples_cannot_tell():
    assert copying(mixture(2, 20), TRAIN, HELD_OUT).verdict == "cannot tell"
    assert "could be copies without showing" in copying(mixture(2, 20), TRAIN, HELD_OUT).sentence
    assert copying(mixture(2, 20), TRAIN, HELD_OUT, least=0.5).verdict == "no sign of copying"
    assert copying(TRAIN[:20], TRAIN, HELD_OUT).verdict == "copies"


def test_real_digits_are_no_copies_of_other_digits_and_blurred_copies_are():
    train, rest = DIGITS.split(0.5)
    fresh, held_out = rest.x[:400], rest.x[400:]
    assert copying(fresh, train.x, held_out).verdict == "no sign of copying"
    assert copying(fresh, train.x).verdict == "no sign of copying"
    assert copying((train.x[:400] + 8 * noise(0, 400, 1, 8, 8)).clamp(0, 255), train.x, held_out).verdict == "copies"


def test_mirrored_copies_are_found_where_flips_are_asked_for():
    train, held_out = DIGITS.split(0.3)
    made = train.x[:200].flip(-1)
    assert copying(made, train.x, held_out.x).copies.value < 0.1
    found = copying(made, train.x, held_out.x, flips=True)
    assert found.verdict == "copies"
    assert found.copies.value == 1
    assert all(pair.flipped and pair.sample == pair.train for pair in found.pairs)
    # A picture and its mirror image in the training data are duplicates.
    both = copying(made, torch.cat([train.x, train.x.flip(-1)]), held_out.x, flips=True)
    assert both.copies.value == 1
    assert f"{len(train.x):,} exact duplicates" in both.notes[0]
    assert not any(pair.flipped for pair in copying(train.x[:200], train.x, held_out.x, flips=True).pairs)


def test_pairs_say_what_is_near_what():
    made = torch.cat([mixture(2, 20), TRAIN[[7]] + 1e-3, TRAIN[[9]]])
    found = copying(made, TRAIN, HELD_OUT, closest=3)
    first, second, third = found.pairs
    assert (first.sample, first.train, first.ratio) == (21, 9, 0.0)
    assert (second.sample, second.train) == (20, 7)
    assert second.distance == pytest.approx(1e-3 * math.sqrt(6), rel=1e-3)
    assert second.second_distance == pytest.approx(float((made[20] - TRAIN[second.second]).double().norm()), rel=1e-6)
    assert second.ratio == second.distance / second.second_distance < third.ratio
    assert copying(made, TRAIN, HELD_OUT, closest=0).pairs == ()


def test_held_out_samples_that_were_trained_on_are_told_of():
    leaked = torch.cat([HELD_OUT[:400], TRAIN[:100]])
    found = copying(TRAIN[:300], TRAIN, leaked)
    assert found.notes[0].startswith("100 held-out samples are in the training data as well")
    assert found.baseline.value == 0.2
    assert found.verdict == "copies"


def test_a_model_copies_where_one_space_shows_it():
    fresh, copies = (
        Compared(mixture(2, 300), TRAIN, HELD_OUT),
        Compared(Cloud(TRAIN[:300]), Cloud(TRAIN), Cloud(HELD_OUT)),
    )
    few = Compared(mixture(2, 20), TRAIN, HELD_OUT)
    assert memorisation({"pixels": fresh, "features": copies}).verdict == "copies"
    assert memorisation({"pixels": fresh, "features": fresh}).verdict == "no sign of copying"
    found = memorisation({"pixels": fresh, "features": few})
    assert found.verdict == "cannot tell"
    assert found.sentence.startswith("In pixels: no sign of copying: ")
    assert " In features: cannot tell: " in found.sentence
    values = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert values["spaces"]["pixels"]["copies"]["trials"] == 300
    assert values["spaces"]["pixels"]["distances"]["made"]["0.5"] == pytest.approx(
        float(found.spaces["pixels"].distances.median()), rel=0.05
    )
    assert len(values["spaces"]["features"]["pairs"]) == 16


def test_the_same_samples_give_the_same_answer_and_the_search_is_told_of():
    told = []
    one, two = (copying(mixture(2, 50), mixture(0, 3000), seed=4, progress=lambda *a: told.append(a)) for _ in range(2))
    assert one.as_dict() == two.as_dict()
    assert one.baseline.trials == 1000
    assert ("nearest neighbours: samples", 3000, 3000) in told


def test_few_dimensions_need_more_nearness_to_make_a_duplicate():
    for width in (1, 2, 5):
        points = torch.rand(4000, width, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
        distances = torch.cdist(points[:500], points[500:]).topk(10, largest=False).values
        assert sameness(distances) == pytest.approx(min(0.1, (1e-4 / 9) ** (1 / width)), rel=0.9)
        assert (distances[:, 0] < sameness(distances) * distances[:, -1]).float().mean() < 0.01
    assert sameness(torch.ones(5, 10, dtype=torch.float64)) == 0.1
    assert sameness(torch.zeros(5, 10, dtype=torch.float64)) == 0.1


def test_equal_rows_are_found_by_their_bits():
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0], [2.0, 2.0], [1.0, 0.0]])
    assert distinct(x, flips=False).tolist() == [0, 1, 3]
    assert distinct(x, flips=True).tolist() == [0, 3]
    assert some(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    assert len(set(some(100, 20, 0).tolist())) == 20
    assert some(100, 20, 0).tolist() != some(100, 20, 1).tolist()


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ShapeError, match=r"expected samples of shape \(6,\), as the training data has, got \(5,\)"):
        copying(TRAIN[:, :5], TRAIN, HELD_OUT)
    with pytest.raises(ShapeError, match="flips: expected images"):
        copying(TRAIN, TRAIN, HELD_OUT, flips=True)
    with pytest.raises(DataError, match="from 3 different training samples on, got 2"):
        copying(TRAIN, TRAIN[[0, 1, 1, 0]])
    bad = TRAIN.clone()
    bad[3, 3] = math.nan
    with pytest.raises(DataError, match="1 of 1000 rows of data"):
        copying(TRAIN, bad, HELD_OUT)
    with pytest.raises(BadOption, match="least"):
        copying(TRAIN, TRAIN, least=0)
    with pytest.raises(BadOption, match="at least one space"):
        memorisation({})
    assert copying(TRAIN[:40], TRAIN[:3]).copies.trials == 40
    assert copying(TRAIN[:40], TRAIN[:2], HELD_OUT).copies.trials == 40
