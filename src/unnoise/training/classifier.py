"""How a classifier of noisy data learns: noisy samples of the training data, and their labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.base import Codec
from ..data.base import Dataset
from ..errors import DataError, TrainingDiverged
from ..guidance.noisy_classifier import NoisyClassifier
from ..options import Checked, option
from ..process.base import Schedule, scales, time_at
from ..process.forward import add_noise
from ..randomness import address, normal_like, torch_seeded, uniform

NOISES = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Where its accuracy is measured: sigma / (alpha s), s the standard deviation of the clean data."""
WARMUP = 0.05


@dataclass(frozen=True)
class ClassifierSettings(Checked):
    """How a classifier of noisy data learns."""

    steps: int = option(3000, help="updates", low=1)
    batch_size: int = option(128, help="noisy samples of an update", low=1)
    lr: float = option(
        2e-3, help="highest learning rate of AdamW; it rises for a twentieth of the run, then falls to 0", low=0
    )
    weight_decay: float = option(0.05, help="of AdamW", low=0)
    seed: int = option(0, help="of first weights, order, times and noise")


def train_classifier(
    data: Dataset,
    codec: Codec,
    schedule: Schedule,
    sigma_data: float,
    settings: ClassifierSettings | None = None,
    *,
    network: str | None = None,
    options: dict[str, Any] | None = None,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NoisyClassifier:
    """A classifier that has learned to tell the labels of noisy data, at times spread evenly over the schedule.

    What it learns is the same for one seed, whatever was drawn elsewhere.

    Args:
        data: With labels.
        codec: The way into the space of the model that it shall steer.
        schedule: Of that model.
        sigma_data: Of that model.
        settings: The defaults if left out.
        network: See `NoisyClassifier`.
        options: Of the network.
        device: Where it learns.
        progress: Told of updates made, and how many there are.

    Raises:
        DataError: The data has no labels, or fewer than two.
        TrainingDiverged: The loss is no longer a number.
        IncompatibleParts: The network does not go with the data.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), Section 4 and Appendix H,
        https://arxiv.org/abs/2105.05233
    """
    settings = settings or ClassifierSettings()
    labels = check_labels(data)
    device = torch.device("cpu") if device is None else device
    with torch_seeded(address(settings.seed, "classifier weights"), torch.device("cpu")):
        shape = codec.shape(data.spec.shape)
        classifier = NoisyClassifier(shape, data.spec.class_names, sigma_data, network, options)
    classifier.to(device).train()
    optimizer = torch.optim.AdamW(_groups(classifier, settings.weight_decay), lr=settings.lr)
    clean, order = _clean(data, codec, device), data.order(settings.seed)
    for step in range(settings.steps):
        positions = range(step * settings.batch_size, (step + 1) * settings.batch_size)
        rows = torch.from_numpy(order.index_at(np.arange(positions.start, positions.stop)))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _rate(step, settings.steps)
        x_t, t = _noisy(clean(rows), schedule, settings.seed, positions)
        said = classifier(x_t.to(device), t.to(device), schedule)
        loss = nn.functional.nll_loss(said, labels[rows].to(device))
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the classifier's loss is no longer a number at step {step + 1}: lower lr ({settings.lr:g})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1, settings.steps)
    return classifier.eval().requires_grad_(False)


def check_labels(data: Dataset) -> Tensor:
    """The labels of data that a classifier can learn from.

    Raises:
        DataError: There are none, or fewer than two.
    """
    if data.labels is None or data.spec.num_classes < 2 or len(data) == 0:
        names = ", ".join(data.spec.class_names) or "none"
        raise DataError(
            f"a classifier needs samples with two labels or more, and this data has {len(data)}, labels {names}"
        )
    return data.labels


@torch.no_grad()
def accuracy(
    classifier: NoisyClassifier, data: Dataset, codec: Codec, schedule: Schedule, seed: int = 0
) -> dict[float, float]:
    """The share of noisy samples whose label is found, by sigma / (alpha s).

    Args:
        classifier: Which.
        data: With labels.
        codec: As for `train_classifier`.
        schedule: As for `train_classifier`.
        seed: Of the noise.
    """
    labels, device = check_labels(data), next(classifier.parameters()).device
    z = _clean(data, codec, device)(torch.arange(len(data)))
    found = {}
    for noise in NOISES:
        t = torch.tensor(time_at(schedule, -2 * math.log(noise * classifier.sigma_data)), dtype=torch.float64)
        if scales(schedule, float(t))[1] == 0:  # the schedule begins with more noise
            continue
        eps = normal_like(address(seed, "classifier accuracy", noise), range(len(z)), z)
        said = [
            classifier(part.to(device), t.to(device), schedule).argmax(1).cpu()
            for part in add_noise(z, eps, schedule, t).split(256)
        ]
        found[noise] = float((torch.cat(said) == labels).double().mean())
    return found


def _groups(classifier: NoisyClassifier, weight_decay: float) -> list[dict[str, Any]]:
    weights = list(classifier.parameters())
    return [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]


def _rate(step: int, steps: int) -> float:
    return min((step + 1) / (WARMUP * steps), (1 - step / steps) / (1 - WARMUP), 1.0)


@torch.no_grad()
def _clean(data: Dataset, codec: Codec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Rows of the data in the space of the model, on the processor; what a learned codec makes of them is made once."""
    if not codec.learned:
        return lambda rows: codec.encode(data.x[rows])
    codec = codec.on(device, torch.float32)
    latents = torch.cat([codec.encode(some.to(device)).cpu() for some in data.x.split(256)])
    return lambda rows: latents[rows]


def _noisy(z: Tensor, schedule: Schedule, seed: int, positions: range) -> tuple[Tensor, Tensor]:
    """Noisy samples, and the time of each, shape (B,)."""
    times: np.ndarray[Any, np.dtype[np.float64]] = uniform(address(seed, "classifier times"), positions)[:, 0]
    t = torch.from_numpy(times.copy())
    eps = normal_like(address(seed, "classifier noise"), positions, z)
    return add_noise(z, eps, schedule, t), t
