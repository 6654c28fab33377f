"""A classifier of noisy data for one model, learned from the data that the model learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.base import Progress
from ..errors import DataError, IncompatibleParts
from ..guidance.noisy_classifier import NoisyClassifier
from ..model import Model
from ..options import plain
from ..precision import find_device
from ..randomness import permutations
from ..steering import check_place, write_classifier
from ..training.classifier import ClassifierSettings, accuracy, check_labels, train_classifier
from .run_data import in_memory, run_data, source_like

MOST_MEASURED = 2048
"""Samples by which a classifier is judged, at most."""


@dataclass(frozen=True)
class Learned:
    """A classifier that was learned, and how good it is.

    Args:
        classifier: Of noisy data.
        folder: Where it stands.
        accuracy: The share of held-out samples whose label it finds, by sigma / (alpha s).
        held_out: How many of them there are; 0 where the training data itself was taken.
        chance: What guessing would reach.
        notes: One line each.
    """

    classifier: NoisyClassifier
    folder: Path
    accuracy: dict[float, float]
    held_out: int
    chance: float
    notes: tuple[str, ...]


def learn_classifier(
    model: Model,
    out: str | Path,
    settings: ClassifierSettings | None = None,
    *,
    data: str | None = None,
    network: str | None = None,
    options: dict[str, Any] | None = None,
    device: str = "auto",
    reading: Progress | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Learned:
    """Learns a classifier that can guide a model, and writes its folder.

    Args:
        model: What it shall guide.
        out: The folder.
        settings: How it learns; the defaults if left out.
        data: Where labelled data stands; what the model's run learned from by default.
        network: "mlp" or "encoder"; what suits the data by default.
        options: Of the network.
        device: Where it learns.
        reading: Told while data is read.
        progress: Told of updates made, and how many there are.

    Raises:
        DataError: It is not known where the data stands, or it has no labels.
        IncompatibleParts: The data is of another shape, or has other labels than the model.
        BadOption: The folder holds something else.
        OSError: The folder cannot be written.
    """
    settings = settings or ClassifierSettings()
    check_place(Path(out))
    codec, schedule, sigma_data = model.blueprint.codec, model.denoiser.schedule, model.denoiser.sigma_data
    train, held_out, notes = _data(model, data, reading)
    check_labels(train)
    if train.spec.shape != model.spec.shape:
        raise IncompatibleParts(f"the model makes {model.spec.shape}, and the data is of shape {train.spec.shape}")
    if model.spec.class_names and train.spec.class_names != model.spec.class_names:
        raise IncompatibleParts(
            f"the model knows the labels {', '.join(model.spec.class_names)}, and the data has {', '.join(train.spec.class_names)}"
        )
    classifier = train_classifier(
        train, codec, schedule, sigma_data, settings,
        network=network, options=options, device=find_device(device), progress=progress,
    ).to("cpu")  # fmt: skip
    judged = held_out if len(held_out) else train
    judged = judged.take(torch.from_numpy(permutations(settings.seed, len(judged), 0, 1)[0][:MOST_MEASURED].copy()))
    found = accuracy(classifier, judged, codec, schedule)
    trained = {
        **plain(settings),
        "data": train.fingerprint(),
        "samples": len(train),
        "accuracy": {str(noise): share for noise, share in found.items()},
        "held_out": len(held_out),
    }
    write_classifier(Path(out), classifier, model.blueprint, trained)
    return Learned(classifier, Path(out), found, len(held_out), _chance(judged), notes)


def _data(model: Model, data: str | None, reading: Progress | None) -> tuple[Any, Any, tuple[str, ...]]:
    if data is not None:
        whole, notes = in_memory(source_like(data, model).load(reading))
        train, held_out = whole.split(0.1)
        return train, held_out, notes
    run = run_data(model, reading)
    if run is None:
        raise DataError("it is not known what the model learned from: give labelled data with --data")
    changed = ("the data has changed since the model was trained",) if run.changed else ()
    return run.train, run.held_out, (*run.notes, *changed)


def _chance(data: Any) -> float:
    """How often the commonest label is right."""
    return float(data.labels.bincount().max()) / len(data)
