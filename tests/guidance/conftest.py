"""A denoiser that is nothing but odd, and one that is exact."""

import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.guidance.noisy_classifier import Classifier
from unnoise.process.flow import FlowSchedule


class Odd(Denoiser):
    """Its answer depends on the sample, its time and its label; the variance fraction is the label; it counts its calls."""

    def __init__(self, schedule=None, learns_variance=False):
        super().__init__()
        self.schedule, self.calls, self.learns_variance = schedule or FlowSchedule(), [], learns_variance

    def with_variance(self, x_t, t, cond=None):
        self.calls.append(len(x_t))
        over = [-1, *[1] * (x_t.ndim - 1)]
        label = (torch.full((len(x_t),), 9) if cond is None else cond["label"]).to(x_t).reshape(over)
        t = t.expand(len(x_t)) if t.ndim == 0 else t
        return torch.sin(3 * x_t + label) * (1 - t.to(x_t).reshape(over) / 2), label.expand_as(x_t)

    def forward(self, x_t, t, cond=None):
        return self.with_variance(x_t, t, cond)[0]

    def null_condition(self, batch, device=None):
        return {"label": torch.full((batch,), 9)}


class ExactClassifier(Classifier):
    """The probabilities of the labels of a mixture, by Bayes' rule."""

    def __init__(self, oracle):
        super().__init__(tuple("abcdefgh"[: oracle.num_classes]))
        self.oracle = oracle

    def forward(self, x_t, t, schedule):
        labels = range(self.oracle.num_classes)
        shares = torch.stack([self.oracle.log_weights[self.oracle.owner == k].logsumexp(0) for k in labels])
        each = [self.oracle.log_prob(x_t, t, {"label": torch.full((len(x_t),), k)}) for k in labels]
        return (torch.stack(each, 1) + shares).log_softmax(1)


@pytest.fixture
def odd():
    return Odd


@pytest.fixture
def exact_classifier():
    return ExactClassifier


@pytest.fixture
def plane():
    """Makes a mixture of three normal distributions in the plane, with two labels."""

    def make(schedule, labels=(0, 1, 1)):
        means = torch.tensor([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]], dtype=torch.float64)
        stds, weights = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.7, 0.4], [0.5, 0.2, 0.3]))
        return GaussianMixtureOracle(means, stds, weights, schedule, labels)

    return make
