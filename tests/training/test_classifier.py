"""Classifiers of noisy data: as good as they can be where that is known, and able to guide."""

import math

import pytest
import torch
from scipy.stats import norm

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Dataset, Spec
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.errors import DataError
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier import ClassifierGuidance
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.process.linear import LinearSchedule
from unnoise.samplers import grids
from unnoise.samplers.base import sample, samplers
from unnoise.training.classifier import ClassifierSettings, accuracy, train_classifier

SCHEDULE = LinearSchedule()
SPREAD = math.sqrt(1.25)
SETTINGS = ClassifierSettings(steps=400, batch_size=256, lr=4e-3)


@pytest.fixture(scope="module")
def oracle():
    return GaussianMixtureOracle(
        torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, 0.5]), torch.ones(2), SCHEDULE, (0, 1)
    )


def points(oracle, n):
    x = torch.cat([oracle.sample(n, seed=0, label=k) for k in (0, 1)]).float()
    return Dataset(x, Spec("points", (1,), ("left", "right")), torch.arange(2).repeat_interleave(n))


@pytest.fixture(scope="module")
def learned(oracle):
    return train_classifier(points(oracle, 5000), IdentityCodec(), SCHEDULE, SPREAD, SETTINGS)


def test_it_is_as_good_as_a_classifier_can_be_at_every_noise(oracle, learned):
    """Right is sign(x): with noise of standard deviation s in units of the signal, Phi(1 / sqrt(1/4 + s^2)) of all."""
    for noise, share in accuracy(learned, points(oracle, 1000), IdentityCodec(), SCHEDULE, seed=3).items():
        best = norm.cdf(1 / math.sqrt(0.25 + (noise * SPREAD) ** 2))
        assert share == pytest.approx(best, abs=0.03)


def test_its_probabilities_are_those_of_bayes(oracle, learned):
    x = torch.linspace(-1.5, 1.5, 31)[:, None]
    for t in (0.1, 0.3, 0.6):
        at = torch.tensor(t, dtype=torch.float64)
        each = torch.stack([oracle.log_prob(x, at, {"label": torch.full((31,), k)}) for k in (0, 1)], 1).log_softmax(1)
        assert float((learned(x, at, SCHEDULE).exp() - each.exp()).abs().max()) < 0.08


@pytest.mark.parametrize("conditional", [True, False])
def test_guided_by_it_samples_go_where_classifier_free_guidance_takes_them(oracle, learned, conditional):
    n = 201
    x = torch.from_numpy(norm.ppf((torch.arange(n) + 0.5).numpy() / n))[:, None].float()
    cond, grid = {"label": torch.ones(n, dtype=torch.int64)}, grids.log_snr(40, SCHEDULE)
    ends = [
        sample(samplers.build("dpmpp_2m"), Guided(oracle, rule), x, grid, cond=cond)
        for rule in (ClassifierFreeGuidance(2.0), ClassifierGuidance(learned, 2.0, conditional))
    ]
    # Without help of the model's own labels a few starts far out on the other side, where the data is rare, may be left behind.
    expected, found = (end.median() for end in ends)
    assert float(found) == pytest.approx(float(expected), abs=0.12)
    assert float((ends[1] > 0).double().mean()) > 0.95
    if conditional:
        assert float(ends[1].std()) == pytest.approx(float(ends[0].std()), abs=0.08)


def test_the_same_seed_learns_the_same_and_another_one_does_not(oracle):
    few = ClassifierSettings(steps=5, batch_size=32)
    data = points(oracle, 100)

    def weights(settings):
        torch.rand(3)  # what is drawn elsewhere does not matter
        trained = train_classifier(data, IdentityCodec(), SCHEDULE, 1.0, settings)
        return torch.cat([p.flatten() for p in trained.parameters()])

    assert torch.equal(weights(few), weights(few))
    assert not torch.equal(weights(few), weights(ClassifierSettings(steps=5, batch_size=32, seed=1)))


def test_pictures_are_learned_by_the_encoder():
    """Which half of an image is bright, through noise."""
    x = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    x[:200, :, :, :4] = 255
    x[200:, :, :, 4:] = 255
    data = Dataset(x, Spec("image", (1, 8, 8), ("left", "right")), torch.arange(2).repeat_interleave(200))
    settings = ClassifierSettings(steps=40, batch_size=32, lr=3e-3)
    options = {"width": 8, "multipliers": [1, 2], "head_channels": 8}
    told = []
    trained = train_classifier(
        data, IdentityCodec.pixels(), SCHEDULE, 1.0, settings, options=options, progress=lambda *at: told.append(at)
    )
    found = accuracy(trained, data.take(torch.arange(0, 400, 4)), IdentityCodec.pixels(), SCHEDULE)
    assert trained.kind == "encoder"
    assert found[0.5] == 1.0
    assert found[1.0] > 0.95
    assert told[-1] == (40, 40)


@pytest.mark.parametrize("names", [(), ("only",)])
def test_data_with_nothing_to_tell_apart_is_refused(names):
    labels = torch.zeros(4, dtype=torch.int64) if names else None
    with pytest.raises(DataError, match="two labels or more"):
        train_classifier(
            Dataset(torch.zeros(4, 2), Spec("points", (2,), names), labels), IdentityCodec(), SCHEDULE, 1.0
        )
