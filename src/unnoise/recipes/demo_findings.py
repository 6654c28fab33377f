"""What the demo measures on its two models: steps, guidance, labels, with everything in motion."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.base import Dataset, Progress
from ..evaluation.adherence import NearestNeighbours, Share
from ..evaluation.distances import energy_distance, sliced_wasserstein
from ..model import Model
from ..pictures.animation import save_animation
from ..randomness import address, uniform
from ..samplers.grids import make_grid
from .gallery import reverse_animation

STEPS = (1, 5, 50)
SCALES = (0.0, 1.0, 3.0, 8.0)
GOOD_SCALE = 2.0


@dataclass(frozen=True)
class Effort:
    """How much work the demo makes of its measurements.

    Args:
        points: Samples of the spiral at each number of steps.
        digits: Digits at each number of steps.
        a_label: Digits of each label at each guidance scale.
        frames: Steps of the animations.
        guided_steps: Steps of guided samples.
    """

    points: int = 2000
    digits: int = 400
    a_label: int = 20
    frames: int = 24
    guided_steps: int = 20


@dataclass(frozen=True)
class Trained:
    """A model of the demo with what it was trained on.

    Args:
        name: Of its recipe.
        folder: Of its run.
        model: As it came out.
        data: What it was trained on.
        facts: What its last validation and its last line of metrics say.
    """

    name: str
    folder: Path
    model: Model
    data: Dataset
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class StepsRow:
    """What a number of steps gives.

    Args:
        steps: From noise to data; 0 for the data itself, drawn anew.
        calls: Network calls for one batch.
        seconds: For all samples, the best of some tries.
        energy: Energy distance to the data.
        sliced: Sliced Wasserstein distance to the data.
        samples: In the units of the data.
    """

    steps: int
    calls: int
    seconds: float
    energy: float
    sliced: float
    samples: Tensor


@dataclass(frozen=True)
class GuidanceRow:
    """What a guidance scale gives.

    Args:
        scale: Of classifier-free guidance.
        adherence: The share that is recognised as what was asked for.
        diversity: Mean distance within a label, relative to the data's.
        samples: The labels in turn: 0, 1, 2 ... 0, 1, 2 ...
    """

    scale: float
    adherence: Share
    diversity: float
    samples: Tensor


@dataclass
class Findings:
    """Everything that the page tells.

    Args:
        spiral: The model of points.
        digits: The model of digits.
        steps: Rows by recipe.
        guidance: A row for each scale.
        classifier: How often the judge of adherence is right on digits that it has not seen.
        animations: Files of the reverse process by recipe.
        by_label: Digits at GOOD_SCALE, ten of each label, label by label.
        nearest: Median distance to the nearest real digit, of those of `by_label` and of other real ones.
        seconds: That sampling and measuring took.
    """

    spiral: Trained
    digits: Trained
    steps: dict[str, list[StepsRow]] = field(default_factory=dict)
    guidance: list[GuidanceRow] = field(default_factory=list)
    classifier: Share | None = None
    animations: dict[str, bytes] = field(default_factory=dict)
    by_label: Tensor | None = None
    nearest: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0


def measure(spiral: Trained, digits: Trained, effort: Effort, report: Progress) -> Findings:
    """Samples from both models, and compares what they make with the data."""
    began, found = time.perf_counter(), Findings(spiral, digits)
    num_labels = digits.model.spec.num_classes

    def of_spiral() -> None:
        found.steps["spiral"] = compare_steps(spiral, effort.points)

    def of_digits() -> None:
        found.steps["digits"] = compare_steps(digits, effort.digits)

    def guided() -> None:
        n = effort.a_label * num_labels
        found.guidance = [compare_guidance(digits, scale, n, effort.guided_steps) for scale in SCALES]
        found.classifier = judge_the_judge(digits.data)

    def animated() -> None:
        labels = [i % num_labels for i in range(20)]
        frames = {
            "spiral": reverse_animation(spiral.model, 500, data=spiral.data, size=280, steps=effort.frames),
            "digits": reverse_animation(digits.model, 20, label=labels, size=280, steps=effort.frames),
        }
        for name, each in frames.items():
            stream = io.BytesIO()
            save_animation(each, stream, fps=8, hold_last=2.0, format="webp")
            found.animations[name] = stream.getvalue()

    def by_label() -> None:
        labels = [label for label in range(num_labels) for _ in range(10)]
        found.by_label = digits.model.sample(len(labels), label=labels, guidance=GOOD_SCALE, seed=1).tensor
        found.nearest = nearest_real(found.by_label, digits.data.x), nearest_real(digits.data.x, digits.data.x)

    stages = [of_spiral, of_digits, guided, animated, by_label]
    for i, stage in enumerate(stages):
        report("sampling and measuring", i, len(stages))
        stage()
    report("sampling and measuring", len(stages), len(stages))
    found.seconds = time.perf_counter() - began
    return found


def in_turn(data: Dataset, n: int) -> list[int] | None:
    """Labels for n samples, the classes in turn; None where there are none."""
    return [i % data.spec.num_classes for i in range(n)] if data.spec.num_classes else None


def comparable(data: Dataset, x: Tensor) -> Tensor:
    """Samples in the unit that distances are told in: that of points as they are, of pixels half their range."""
    return x.double() / 127.5 if data.spec.kind == "image" else x.double()


def compare_steps(trained: Trained, n: int, steps: Sequence[int] = STEPS) -> list[StepsRow]:
    """The same noise in different numbers of steps, without guidance, after the data itself, drawn anew.

    Args:
        trained: What is sampled.
        n: Samples a row.
        steps: A row for each.
    """
    model, data = trained.model, trained.data
    rows = [drawn_anew(data, n)]
    model.sample(n, steps=1, label=in_turn(data, n))  # what happens only once is not timed
    for count in steps:
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < 0.5:  # the best of some, since other programs run too
            began = time.perf_counter()
            made = model.sample(n, label=in_turn(data, n), steps=count, guidance=1.0, batch_size=n)
            seconds.append(time.perf_counter() - began)
        calls = model.sampling.sampler.network_calls(make_grid(model.sampling.grid, count, model.denoiser.schedule))
        rows.append(_distances(data, count, calls or 0, min(seconds), made.tensor))
    return rows


def drawn_anew(data: Dataset, n: int, times: int = 8) -> StepsRow:
    """What n samples of the data itself reach, the mean over several draws; the first draw is kept.

    Args:
        data: Where they are drawn from, each as often as chance wants.
        n: Samples of a draw.
        times: Draws.
    """
    draws = []
    for i in range(times):
        picks = (uniform(address(0, "demo draw", i), range(n))[:, 0] * len(data)).astype(np.int64)
        draws.append(_distances(data, 0, 0, 0.0, data.x[torch.from_numpy(picks)]))
    energy, sliced = (sum(row.energy for row in draws) / times, sum(row.sliced for row in draws) / times)
    return replace(draws[0], energy=energy, sliced=sliced)


def _distances(data: Dataset, steps: int, calls: int, seconds: float, x: Tensor) -> StepsRow:
    pair = comparable(data, x), comparable(data, data.x)
    return StepsRow(steps, calls, seconds, energy_distance(*pair), sliced_wasserstein(*pair), x)


def compare_guidance(trained: Trained, scale: float, n: int, steps: int) -> GuidanceRow:
    """The same noise and labels at one guidance scale.

    Args:
        trained: A model with labels.
        scale: 1 is off, 0 ignores the labels.
        n: Samples, the labels in turn.
        steps: From noise to data.
    """
    labels = in_turn(trained.data, n)
    assert labels is not None
    assert trained.data.labels is not None
    made = trained.model.sample(n, label=labels, guidance=scale, steps=steps)
    judge = NearestNeighbours(comparable(trained.data, trained.data.x), trained.data.labels)
    x, asked = comparable(trained.data, made.tensor), torch.tensor(labels)
    return GuidanceRow(scale, judge.agreement(x, asked), judge.diversity(x, asked), made.tensor)


def judge_the_judge(data: Dataset) -> Share:
    """How often nearest neighbours are right on a fifth of the data, told the other four fifths."""
    known, new = data.split(0.2)
    assert known.labels is not None
    assert new.labels is not None
    judge = NearestNeighbours(comparable(data, known.x), known.labels)
    return judge.agreement(comparable(data, new.x), new.labels)


def nearest_real(x: Tensor, data: Tensor) -> float:
    """The median distance of a sample to the nearest different one of the data: the root mean square over its values.

    Args:
        x: Shape (N, ...); where it is the data itself, a sample is not its own neighbour.
        data: Shape (M, ...).
    """
    distances = torch.cdist(x.double().flatten(1), data.double().flatten(1))
    if x is data:
        distances.fill_diagonal_(torch.inf)
    return float(distances.amin(1).median()) / math.sqrt(x[0].numel())
