"""What guidance does, as numbers: whether samples show what was asked for, how different they are, and what is overdone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..conditioning.label import LabelConditioning
from ..data.base import Dataset
from ..errors import DataError
from ..evaluation.adherence import NearestNeighbours, Share
from ..evaluation.distances import mean_distance
from ..evaluation.metrics.base import Cloud, Metric
from ..evaluation.metrics.clipping import ClippingMetric
from ..evaluation.metrics.saturation import SaturationMetric
from ..evaluation.scenes.judging import adherence as read_scenes
from ..samples import Samples
from .judging.clouds import rows

MOST_REAL = 5000
"""Real samples that samples are held against."""


@dataclass(frozen=True)
class Reading:
    """One number.

    Args:
        name: adherence, diversity or saturation.
        value: None where it cannot be told; `meaning` then says why.
        low: Lower end of its 95 % interval, where one is known.
        high: Upper end.
        meaning: What it counts, in a few words.
    """

    name: str
    value: float | None
    meaning: str
    low: float | None = None
    high: float | None = None


def readings(samples: Samples, data: Dataset | None) -> tuple[Reading, ...]:
    """Adherence, diversity and saturation of some samples that were asked for alike.

    Args:
        samples: Of one request.
        data: What their model was trained on; None where it is not known.
    """
    if data is None:
        why = "the model's training data is not known here"
        return tuple(Reading(name, None, why) for name in ("adherence", "diversity", "saturation"))
    some = data.take(torch.linspace(0, len(data) - 1, min(len(data), MOST_REAL)).round().long())
    return _adherence(samples, some), _diversity(samples, some), _saturation(samples, some)


def _asked(samples: Samples) -> torch.Tensor | None:
    """The labels that were asked for, as numbers; None where some were not."""
    label = samples.recipe.get("label")
    each = label if isinstance(label, list) else [label] * len(samples)
    if any(one is None for one in each):
        return None
    return LabelConditioning(samples.spec.class_names).condition(each)["label"]


def _adherence(samples: Samples, data: Dataset) -> Reading:
    prompt = samples.recipe.get("prompt")
    if prompt is not None:
        return _of_words(samples, prompt)
    asked = _asked(samples)
    if asked is None or data.labels is None:
        return Reading("adherence", None, "nothing was asked for")
    known = NearestNeighbours(rows(data.x), data.labels)
    return _share(known.agreement(rows(samples.tensor), asked), "recognised as the label, by the nearest real samples")


def _of_words(samples: Samples, prompt: str | list[str]) -> Reading:
    prompts = prompt if isinstance(prompt, list) else [prompt] * len(samples)
    try:
        shares = read_scenes(samples.tensor, prompts).shares
    except DataError:
        return Reading("adherence", None, "no program here reads such pictures; it does those of the data set shapes")
    return _share(shares["everything"], "show everything that the words say, as a program reads them")


def _share(found: Share, meaning: str) -> Reading:
    return Reading("adherence", found.value, meaning, found.low, found.high)


def _diversity(samples: Samples, data: Dataset) -> Reading:
    if len(samples) < 2:
        return Reading("diversity", None, "one sample has no diversity")
    asked = _asked(samples)
    if asked is not None and data.labels is not None:
        value = NearestNeighbours(rows(data.x), data.labels).diversity(rows(samples.tensor), asked)
        return Reading("diversity", value, "distance of two samples, over that of two real ones of the label")
    made, real = (mean_distance(x, x) * len(x) / (len(x) - 1) for x in (rows(samples.tensor), rows(data.x)))
    return Reading("diversity", made / real if real else None, "distance of two samples, over that of two real ones")


def _saturation(samples: Samples, data: Dataset) -> Reading:
    if samples.spec.kind != "image":
        low, high = data.x.amin(0), data.x.amax(0)
        outside = ((samples.tensor < low) | (samples.tensor > high)).flatten(1).any(1).double().mean()
        return Reading("saturation", float(outside), "of the samples lie beyond the range of the data")
    colours = samples.spec.shape[0] == 3
    metric: Metric = SaturationMetric() if colours else ClippingMetric()
    made, real = (Cloud(rows(x), shape=samples.spec.shape) for x in (samples.tensor, data.x))
    found = metric.measure(made, real)
    meaning = "colours beside the data's" if colours else "of the values cut off at black or white, beside the data"
    return Reading("saturation", float(str(found.details["off"])), meaning)
