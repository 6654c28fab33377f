import pytest
import scipy.stats
import torch
from sklearn.neighbors import KNeighborsClassifier

from unnoise.data.digits import DigitsDataset
from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation.adherence import NearestNeighbours, share

DIGITS = DigitsDataset().load()


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (7, 20), (20, 20), (194, 200)])
def test_the_interval_is_wilsons(successes, trials):
    found = share(successes, trials)
    exact = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert (found.value, found.trials) == (successes / trials, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_on_real_digits_the_neighbours_are_those_of_scikit_learn():
    known, new = DIGITS.split(0.2)
    found = NearestNeighbours(known.x, known.labels, 1).predict(new.x)
    judge = KNeighborsClassifier(1, algorithm="brute").fit(known.x.flatten(1).double(), known.labels)
    assert found.tolist() == judge.predict(new.x.flatten(1).double()).tolist()
    assert NearestNeighbours(known.x, known.labels).agreement(new.x, new.labels).value > 0.97


def test_most_neighbours_win_and_among_equals_the_nearest():
    x = torch.tensor([[0.0], [1.0], [1.1], [5.0], [6.0], [7.0]])
    labels = torch.tensor([2, 1, 1, 0, 1, 2])
    judge = NearestNeighbours(x, labels, 3)
    assert judge.predict(torch.tensor([[0.1], [6.6], [5.4]])).tolist() == [1, 2, 0]


def test_agreement_counts_what_is_recognised():
    asked = DIGITS.labels[:100].clone()
    asked[:25] = (asked[:25] + 1) % 10
    found = NearestNeighbours(DIGITS.x, DIGITS.labels, 1).agreement(DIGITS.x[:100], asked)
    assert found == share(75, 100)


def test_the_data_is_as_diverse_as_itself_and_a_copy_is_not_diverse():
    judge = NearestNeighbours(DIGITS.x, DIGITS.labels)
    assert judge.diversity(DIGITS.x, DIGITS.labels) == pytest.approx(1, rel=1e-12)
    assert judge.diversity(DIGITS.x[:10].repeat(3, 1, 1, 1), DIGITS.labels[:10].repeat(3)) == pytest.approx(0, abs=1e-6)


def test_samples_drawn_in_by_half_are_half_as_diverse():
    centre = torch.stack([DIGITS.x[DIGITS.labels == label].double().mean(0) for label in range(10)])[DIGITS.labels]
    judge = NearestNeighbours(DIGITS.x, DIGITS.labels)
    assert judge.diversity(centre + 0.5 * (DIGITS.x - centre), DIGITS.labels) == pytest.approx(0.5, rel=1e-9)


def test_diversity_does_not_depend_on_how_many_samples_there_are():
    data = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    judge = NearestNeighbours(data, torch.zeros(4000))
    few = [judge.diversity(data[i : i + 4], torch.zeros(4)) for i in range(0, 4000, 4)]
    assert sum(few) / len(few) == pytest.approx(1, abs=0.02)


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(BadOption, match="k: must be from 1 to 5"):
        NearestNeighbours(torch.zeros(5, 2), torch.zeros(5), 6)
    with pytest.raises(ShapeError, match=r"labels of shape \(5,\)"):
        NearestNeighbours(torch.zeros(5, 2), torch.zeros(4))
    judge = NearestNeighbours(torch.zeros(5, 2), torch.zeros(5))
    with pytest.raises(ShapeError, match="samples of 2 values"):
        judge.predict(torch.zeros(3, 4))
    with pytest.raises(DataError, match="diversity needs pairs"):
        judge.diversity(torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(BadOption, match="expected 0 to 3"):
        share(4, 3)
