"""What a data set holds, in numbers and in warnings: the look that one takes before training on it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .base import AnyDataset, Dataset

FEW_SAMPLES = 50
MOST_LOOKED_AT = 10_000
MANY_LABELS = 20  # more than that, and more than half as many as samples, are hardly classes
UNBALANCED = 10  # times as many samples under one label as under another
_EXAMPLES = 5
_VALUES_AT_ONCE = 2**18  # fits into a processor's cache as float64


@dataclass(frozen=True)
class DataReport:
    """What a data set holds.

    Args:
        count: How many samples.
        looked_at: How many of them all the rest is about: all but of data that is read in shards.
        kind: "points", "image" or "array".
        shape: Of one sample.
        values_per_sample: How many numbers one sample has.
        dtype: Of these numbers: "uint8" or "float32".
        low: The smallest finite value, or None without any.
        high: The largest finite value, or None.
        mean: Of all finite values, or None.
        std: Their standard deviation around that mean, or None.
        not_finite: How many values are NaN or infinite.
        labels: How many samples each label has, by name; empty without labels.
        captions: How many samples have a caption.
        duplicates: How many samples equal an earlier one, byte for byte.
        duplicate_examples: The numbers of the first samples that are equal, a few groups.
        skipped: What could not be read, one line each.
        warnings: What may spoil training, a sentence each.
    """

    count: int
    looked_at: int
    kind: str
    shape: tuple[int, ...]
    values_per_sample: int
    dtype: str
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    not_finite: int
    labels: dict[str, int]
    captions: int
    duplicates: int
    duplicate_examples: tuple[tuple[int, ...], ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values that JSON can hold, by the names of the fields."""
        return asdict(self)


@dataclass(frozen=True)
class _Statistics:
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    not_finite: int
    constant: tuple[int, ...]  # channels


def inspect_data(data: AnyDataset, most: int = MOST_LOOKED_AT) -> DataReport:
    """What a data set holds; also for one that `Dataset.check` would refuse.

    Args:
        data: The data set.
        most: Samples that are looked at of data that is not in memory, from places spread over the whole.

    Returns:
        The report. Nothing is printed.
    """
    dataset = data.part(most)
    statistics = _statistics(dataset.x)
    groups = _equal_samples(dataset.x)
    duplicates = sum(len(group) - 1 for group in groups)
    labels, outside = _label_counts(dataset)
    return DataReport(
        count=len(data),
        looked_at=len(dataset),
        kind=dataset.spec.kind,
        shape=tuple(dataset.spec.shape),
        values_per_sample=math.prod(dataset.spec.shape),
        dtype=str(dataset.x.dtype).removeprefix("torch."),
        low=statistics.low,
        high=statistics.high,
        mean=statistics.mean,
        std=statistics.std,
        not_finite=statistics.not_finite,
        labels=labels,
        captions=len(dataset.texts or ()),
        duplicates=duplicates,
        duplicate_examples=tuple(tuple(group[:_EXAMPLES]) for group in groups[:_EXAMPLES]),
        skipped=(*data.skipped, *(line for line in dataset.skipped if line not in data.skipped)),
        warnings=tuple(_warnings(dataset, statistics, labels, outside, duplicates)),
    )


def few_samples(count: int) -> str | None:
    """The warning that so few samples are learned by heart; None for enough."""
    if count >= FEW_SAMPLES:
        return None
    there = "is only 1 sample" if count == 1 else f"are only {count} samples"
    return f"There {there}: a model will learn {'it' if count == 1 else 'them'} by heart."


def _statistics(x: Tensor) -> _Statistics:
    """Range, mean and spread in one pass; parts are merged as by Chan, Golub and LeVeque (1979)."""
    channels = x.shape[1] if x.ndim > 1 else 1
    low, high = torch.full((channels,), math.inf).double(), torch.full((channels,), -math.inf).double()
    count, mean, squares, not_finite = 0, 0.0, 0.0, 0
    at_once = max(1, _VALUES_AT_ONCE // max(1, math.prod(x.shape[1:])))
    for part in x.split(at_once) if x.numel() else ():
        values = part.double().reshape(len(part), channels, -1)
        finite = torch.isfinite(values)
        low = torch.minimum(low, values.where(finite, torch.tensor(math.inf)).amin((0, 2)))
        high = torch.maximum(high, values.where(finite, torch.tensor(-math.inf)).amax((0, 2)))
        values = values[finite] if not finite.all() else values
        not_finite += part.numel() - values.numel()
        if values.numel() == 0:
            continue
        part_mean = float(values.mean())
        step, share = part_mean - mean, values.numel() / (count + values.numel())
        squares += float((values - part_mean).square().sum()) + step * step * count * share
        mean += step * share
        count += values.numel()
    if count == 0:
        return _Statistics(None, None, None, None, not_finite, ())
    constant = tuple(int(i) for i in (low == high).nonzero())
    return _Statistics(float(low.min()), float(high.max()), mean, math.sqrt(squares / count), not_finite, constant)


def _equal_samples(x: Tensor) -> list[list[int]]:
    """The numbers of the samples that are equal byte for byte, in groups of two or more."""
    groups: dict[bytes, list[int]] = {}
    for i, sample in enumerate(x):
        digest = hashlib.blake2b(sample.contiguous().numpy().tobytes(), digest_size=16).digest()
        groups.setdefault(digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _label_counts(dataset: Dataset) -> tuple[dict[str, int], int]:
    """The samples under each label, and how many have a label that is none."""
    if dataset.labels is None:
        return {}, 0
    counts = dict.fromkeys(dataset.spec.class_names, 0)
    outside = 0
    for number, count in zip(*(each.tolist() for each in dataset.labels.unique(return_counts=True)), strict=True):
        if 0 <= number < dataset.spec.num_classes:
            counts[dataset.spec.class_names[number]] += count
        else:
            outside += count
    return counts, outside


def _warnings(
    dataset: Dataset, statistics: _Statistics, labels: dict[str, int], outside: int, duplicates: int
) -> Iterator[str]:
    count = len(dataset)
    if few := few_samples(count):
        yield few
    if number := statistics.not_finite:
        yield f"{number} {'value is' if number == 1 else 'values are'} NaN or infinite: training will refuse the data."
    if count > 1 and statistics.low is not None and statistics.low == statistics.high:
        yield f"Every value is {statistics.low:g}: there is nothing to learn."
    elif count > 1 and statistics.constant:
        listed = ", ".join(str(channel) for channel in statistics.constant[:_EXAMPLES])
        yield f"{len(statistics.constant)} of {dataset.x.shape[1]} channels never change (counted from 0: {listed})."
    if told := dataset.spec.channels_last:
        yield f"{told[0].upper()}{told[1:]}."
    if duplicates:
        yield f"{duplicates} of {count} samples {'equals' if duplicates == 1 else 'equal'} an earlier one."
    if dataset.skipped:
        parts = "part" if len(dataset.skipped) == 1 else "parts"
        yield f"{len(dataset.skipped)} {parts} could not be read or used, e.g. {dataset.skipped[0]}."
    if outside:
        yield f"{outside} {'label lies' if outside == 1 else 'labels lie'} outside of the {dataset.spec.num_classes} classes."
    yield from _label_warnings(labels)


def _label_warnings(labels: dict[str, int]) -> Iterator[str]:
    if empty := [name for name, count in labels.items() if count == 0]:
        yield f"{len(empty)} of {len(labels)} labels {'has' if len(empty) == 1 else 'have'} no sample, e.g. {empty[0]!r}."
    present = {name: count for name, count in labels.items() if count}
    if len(present) > MANY_LABELS and 2 * len(present) > sum(present.values()):
        yield f"There are {len(present)} labels for {sum(present.values())} samples: are they measurements, not classes?"
    if len(present) < 2:
        return
    most, fewest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    if present[most] >= UNBALANCED * present[fewest]:
        yield f"The labels are very unbalanced: {most!r} has {present[most]} samples and {fewest!r} {present[fewest]}."
