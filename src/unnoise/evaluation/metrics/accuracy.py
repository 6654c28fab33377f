"""Whether made samples show the label that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...errors import DataError
from ...options import option
from ..adherence import NearestNeighbours, Share, share
from . import _bars, _rows
from .base import Cloud, Estimate, Metric, metrics


@metrics.register("accuracy")
@dataclass(frozen=True)
class AccuracyMetric(Metric):
    """The share of made samples that are recognised as what was asked for: the mean over the labels.

    Recognised by a classifier whose answers come with the samples, or by the nearest real samples where there are none.
    `classes` in the details holds the share of every label with Wilson's interval, and `real` how well the same classifier
    knows real samples: no more is to be expected of made ones. The nearest samples judge each half of the real ones by the
    other half, and so a little worse than they judge the made ones.

    References:
        Classification Accuracy Score for Conditional Generative Models (Ravuri and Vinyals, 2019), for the reverse way round,
        https://arxiv.org/abs/1905.10887
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    unit: ClassVar[str] = "share of made samples"
    needs_labels: ClassVar[bool] = True

    k: int = option(3, help="how many nearest real samples are asked, where there is no classifier", low=1)

    def measure(self, made: Cloud, real: Cloud, seed: int = 0) -> Estimate:
        """See `Metric.measure`."""
        _rows.check("accuracy", made, real, least=2)
        if made.labels is None:
            raise DataError("accuracy needs the labels that the made samples were asked for, and there are none")
        asked = made.labels.cpu().long()
        answers = self._answers(made, real) if made.predicted is None else made.predicted.cpu().long()
        shares = _by_class(answers, asked)
        nearest = made.predicted is None
        low, high = _interval(shares, len(real) if nearest else None)
        details: dict[str, object] = {
            "classes": {
                str(label): {"value": each.value, "low": each.low, "high": each.high, "n": each.trials}
                for label, each in shares.items()
            },
            "classifier": "nearest real samples" if nearest else "given",
        }
        known = self._of_real(real, not nearest, seed)
        if known:
            details["real"] = _mean(known)
            details["real_low"], details["real_high"] = _interval(known, len(real) if nearest else None)
        way = "variance of the labels' shares"
        return Estimate(_mean(shares), low, high, len(made), len(real), way, details)

    def _answers(self, made: Cloud, real: Cloud) -> Tensor:
        if real.labels is None:
            raise DataError("accuracy needs a classifier's answers to the made samples or the labels of the real ones")
        return self._neighbours(real.features, real.labels).predict(made.features)

    def _of_real(self, real: Cloud, given: bool, seed: int) -> dict[int, Share] | None:
        """What the classifier gets right of real samples, by label, or None where that cannot be known."""
        if real.labels is None:
            return None
        labels = real.labels.cpu().long()
        if given:
            return None if real.predicted is None else _by_class(real.predicted.cpu().long(), labels)
        answers = torch.empty_like(labels)
        halves = _rows.groups(seed, "accuracy halves", len(real), 2)
        for half in (0, 1):
            known, asked = (torch.nonzero(halves == side)[:, 0] for side in (half, 1 - half))
            answers[asked] = self._neighbours(real.features[known], labels[known]).predict(real.features[asked])
        return _by_class(answers, labels)

    def _neighbours(self, features: Tensor, labels: Tensor) -> NearestNeighbours:
        return NearestNeighbours(features, labels, min(self.k, len(features)))


def _by_class(answers: Tensor, asked: Tensor) -> dict[int, Share]:
    labels = asked.unique().tolist()
    right = answers == asked
    return {label: share(int(right[asked == label].sum()), int((asked == label).sum())) for label in labels}


def _mean(shares: Mapping[int, Share]) -> float:
    return sum(each.value for each in shares.values()) / len(shares)


def _interval(shares: Mapping[int, Share], judges: int | None) -> tuple[float, float]:
    """The interval that the mean over the labels falls into for other samples, as many of each label.

    Args:
        shares: By label.
        judges: The number of real samples, where they are the classifier, and others might judge otherwise: each side is
            then taken to leave as much chance as the other would with as many samples. None where the classifier stays.
    """
    num = len(shares)
    trials = num**2 / sum(1 / each.trials for each in shares.values())
    variance = sum(each.value * (1 - each.value) / each.trials for each in shares.values()) / num**2
    if judges is not None:
        variance *= 1 + trials / judges
        trials = _bars.both_sides(trials, judges)
    return _bars.around_share(_mean(shares), trials, _bars.Variance(variance))
