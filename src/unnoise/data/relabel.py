"""Data with its labels numbered in another way, for a model that knows other labels too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from .base import AnyDataset, Dataset
from .streaming.dataset import ShardedDataset


def relabelled(data: AnyDataset, names: Sequence[str]) -> AnyDataset:
    """The same samples, whose labels are numbered by their place among `names`.

    Args:
        data: With labels, or without any; then it stays as it is.
        names: Every label of the data, and others.
    """
    if not data.spec.num_classes or tuple(names) == data.spec.class_names:
        return data
    numbers = np.array([list(names).index(name) for name in data.spec.class_names])
    spec = replace(data.spec, class_names=tuple(names))
    if isinstance(data, ShardedDataset):
        assert data.labels is not None
        return replace(data, spec=spec, labels=numbers[data.labels].astype(np.int32))
    assert isinstance(data, Dataset)
    return replace(data, spec=spec, labels=None if data.labels is None else torch.from_numpy(numbers)[data.labels])
