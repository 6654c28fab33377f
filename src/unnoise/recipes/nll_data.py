"""Of which data likelihoods are worked out, and of how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..data.base import Dataset, Progress
from ..errors import DataError
from ..evaluation.likelihood import MOST_EXACT
from ..model import Model
from .run_data import in_memory, run_data, source_like


@dataclass(frozen=True)
class Chosen:
    """Data, and what a person should know of it.

    Args:
        data: What is evaluated.
        notes: One line each.
    """

    data: Dataset
    notes: tuple[str, ...] = ()


def choose_data(model: Model, path: str | None = None, progress: Progress | None = None) -> Chosen:
    """The data at a path, or what the run around a model has held out, else what it was trained on.

    Args:
        model: Whose data it should be like.
        path: A folder of images, Parquet, NPY/NPZ or CSV, or a shipped data set's name.
        progress: Told while data is read.

    Raises:
        DataError: There is no run to take data from, it cannot be read, or its samples have another shape than the model's.
    """
    notes: list[str] = []
    if path is None:
        found = run_data(model, progress)
        if found is None:
            raise DataError("the model does not stand in a run folder, so its data is not known: give some with --data")
        if found.changed:
            notes.append("the data has changed since the model was trained")
        notes += found.notes
        data = found.held_out if len(found.held_out) else found.train
        notes.append("the data that the model was trained on: what it has never seen may be less likely"
                     if data is found.train else f"the {len(data):,} samples that training has held out")  # fmt: skip
    else:
        data, partly = in_memory(source_like(path, model).load(progress))
        notes += partly
    if not len(data):
        raise DataError("the data set has no samples")
    bad = int((~torch.isfinite(data.x)).flatten(1).any(1).sum())
    if bad:
        raise DataError(
            f"{bad} of {len(data)} samples hold NaN or infinity: they have no likelihood; remove or repair them"
        )
    if data.spec.shape != model.spec.shape or (data.spec.kind == "image") != (model.spec.kind == "image"):
        raise DataError(
            f"the data has {data.spec.kind} samples of shape {data.spec.shape}, and the model makes {model.spec.kind} samples "
            f"of shape {model.spec.shape}: likelihoods need data of the model's own kind"
        )
    return Chosen(data, tuple(notes))


def default_number(data: Dataset) -> int:
    """How many samples are evaluated if nothing is said: 1,000 of few numbers, 100 of pictures, all if there are fewer."""
    return min(len(data), 1000 if math.prod(data.spec.shape) <= MOST_EXACT else 100)
