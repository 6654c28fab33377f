"""Classifier guidance: by Bayes' rule it is classifier-free guidance, where the classifier is exact."""

import pytest
import torch

from unnoise.errors import BadOption, IncompatibleParts, ShapeError
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier import ClassifierGuidance
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.guidance.noisy_classifier import NoisyClassifier
from unnoise.process.cosine import CosineSchedule
from unnoise.process.flow import FlowSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

COND = {"label": torch.tensor([0, 1, 1, 0])}
X = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), FlowSchedule(), VarianceExplodingSchedule()], ids=lambda s: s.registered_name
)
@pytest.mark.parametrize("t", [0.4, [0.1, 0.3, 0.6, 0.9]])
@pytest.mark.parametrize("negative", [None, {"label": torch.tensor([1, 1, 0, 2])}], ids=["null", "negative"])
def test_with_an_exact_classifier_it_is_classifier_free_guidance(plane, exact_classifier, schedule, t, negative):
    oracle, t = plane(schedule), torch.tensor(t, dtype=torch.float64)
    x = X * (schedule.alpha(t) + schedule.sigma(t)).reshape(-1, 1)
    for scale in (0.0, 0.5, 1.0, 3.0):
        free = Guided(oracle, ClassifierFreeGuidance(scale), negative)(x, t, COND)
        for conditional in (True, False):
            rule = ClassifierGuidance(exact_classifier(oracle), scale, conditional)
            torch.testing.assert_close(Guided(oracle, rule, negative)(x, t, COND), free, rtol=1e-8, atol=1e-8)


def test_the_null_label_is_no_push_and_scale_0_of_an_unconditional_model_asks_no_classifier(plane, exact_classifier):
    oracle, t = plane(CosineSchedule()), torch.tensor(0.4, dtype=torch.float64)
    rule = ClassifierGuidance(exact_classifier(oracle), 5.0, conditional=False)
    assert torch.equal(Guided(oracle, rule)(X, t, {"label": torch.full((4,), 2)}), oracle(X, t))
    off = ClassifierGuidance("not there", 0.0, conditional=False)
    assert torch.equal(Guided(oracle, off)(X, t, COND), oracle(X, t))


def test_where_no_signal_is_left_nothing_is_steered(plane, exact_classifier):
    oracle, t = plane(FlowSchedule()), torch.ones((), dtype=torch.float64)
    rule = ClassifierGuidance(exact_classifier(oracle), 5.0)
    assert torch.equal(Guided(oracle, rule)(X, t, COND), oracle(X, t, COND))


def test_it_works_where_gradients_are_off_and_leaves_none_behind(plane):
    classifier = NoisyClassifier((2,), ("a", "b"))
    torch.nn.init.normal_(classifier.network.leave.weight)
    oracle, t = plane(CosineSchedule()), torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        found = Guided(oracle, ClassifierGuidance(classifier, 3.0))(X, t, COND)
    assert not found.requires_grad
    assert all(p.grad is None for p in classifier.parameters())
    assert float((found - oracle(X, t, COND)).abs().max()) > 1e-6


@pytest.mark.parametrize("shape", [(2,), (1, 8), (3, 8, 8), (1, 4, 4, 4)], ids=str)
def test_the_slope_is_that_of_the_log_probability(shape):
    torch.manual_seed(0)
    classifier = NoisyClassifier(shape, ("a", "b", "c")).double()
    for p in classifier.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, schedule = torch.randn(2, *shape, dtype=torch.float64), CosineSchedule()
    t, label = torch.tensor([0.2, 0.7], dtype=torch.float64), torch.tensor([1, 3])
    slope = classifier.slope(x, t, schedule, label)
    assert float(slope[1].abs().max()) == 0  # the null label
    step = 1e-5 * torch.randn(1, *shape, dtype=torch.float64)
    ahead, behind = (classifier(x + sign * step, t, schedule)[0, 1].detach() for sign in (1, -1))
    assert float((slope[0] * step[0]).sum()) == pytest.approx(float(ahead - behind) / 2, rel=1e-5)


def test_its_network_sees_nothing_but_the_ratio_of_signal_to_noise():
    """The same data with the same ratio, on schedules of which one preserves the variance and the other lets it explode."""
    torch.manual_seed(0)
    classifier = NoisyClassifier((2,), ("a", "b"), sigma_data=0.7).double()
    for p in classifier.parameters():
        torch.nn.init.normal_(p, std=0.2)
    preserving, exploding = CosineSchedule(), VarianceExplodingSchedule()
    t = torch.tensor(0.4, dtype=torch.float64)
    s = exploding.time_of(preserving.log_snr(t))
    said = classifier(X, t, preserving)
    torch.testing.assert_close(classifier(X / preserving.alpha(t), s, exploding), said, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.exp().sum(1), torch.ones(4, dtype=torch.float64))


def test_it_is_made_again_from_plain_values():
    classifier = NoisyClassifier((3, 8, 8), ("a", "b"), 0.5)
    again = NoisyClassifier(**classifier.describe())
    again.load_state_dict(classifier.state_dict())
    assert again.describe() == classifier.describe()
    assert classifier.kind == "encoder"


def test_what_does_not_fit_is_refused():
    with pytest.raises(IncompatibleParts, match="needs samples of shape"):
        NoisyClassifier((2,), ("a", "b"), network="encoder")
    with pytest.raises(BadOption, match=r"network\.widthh"):
        NoisyClassifier((2,), ("a", "b"), options={"widthh": 3})
    with pytest.raises(ShapeError, match="expected x of shape"):
        NoisyClassifier((2,), ("a", "b"))(torch.zeros(1, 3), torch.tensor(0.5, dtype=torch.float64), CosineSchedule())


def test_it_goes_by_labels_alone(plane, exact_classifier):
    oracle, t = plane(CosineSchedule()), torch.tensor(0.4, dtype=torch.float64)
    with pytest.raises(BadOption, match="goes by labels"):
        Guided(oracle, ClassifierGuidance(exact_classifier(oracle), 2.0))(X, t, {"context": torch.zeros(4, 1, 1)})
