"""What may be wrong with the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ...data.inspect import FEW_SAMPLES, UNBALANCED
from .base import DiffusionCheck, Finding, RecipeCheck, checks
from .patients import DiffusionPatient, RecipePatient

FAR_OUT, TOO_SMALL = 4.0, 0.1
"""Root mean squares of encoded data: schedules are made for about 1."""
FAINT = 0.02
"""A standard deviation of encoded pictures, whose values lie in [-1, 1]: two and a half of 255 steps of brightness."""
MANY_DUPLICATES = 0.01
MANY_TIMES = 200
"""Times that each sample is seen before a network that could hold all of them is suspected to."""
SHIFTS = (-3, -2, -1, 1, 2, 3)
LITTLE, MANY_OF_A_LABEL = 0.2, 10
"""Of the way from chance to full agreement, which must be told from none; and samples of each label, without which it cannot be."""
NEIGHBOURS_ARE_ALIKE, NEIGHBOURS_TELL = 0.25, 0.8
"""Distances to the nearest sample as a share of a usual one: in noise, where they are almost one, neighbours say nothing."""


@checks.register("not-finite")
class NotFinite(RecipeCheck):
    """Values of the data that are NaN or infinite."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        if patient.report.not_finite:
            bad = ~torch.isfinite(patient.data.x.float()).flatten(1).all(1)
            first = int(patient.numbers[bad][0])
            yield Finding(
                "error",
                f"{patient.report.not_finite:,} values in {int(bad.sum()):,} samples are NaN or infinite, first in sample {first}",
                "training refuses such data: one of them would make every weight NaN",
            )


@checks.register("constant")
class Constant(RecipeCheck):
    """Data, or channels of it, that never change."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        x, report = patient.data.x, patient.report
        if report.low is not None and report.low == report.high:
            yield Finding("error", f"every value is {report.low:g}", "there is nothing to learn")
        elif bool((x == x[:1]).all()):
            yield Finding("error", f"all {len(x):,} samples are the same", "there is nothing to learn")
        elif x.ndim > 1:
            still = [i for i in range(x.shape[1]) if bool((x[:, i] == x[:1, i].flatten()[0]).all())]
            if still:
                unfit = patient.work is None
                yield Finding(
                    "error" if unfit else "warning",
                    f"{len(still)} of {x.shape[1]} channels never change (the first is number {still[0]})",
                    "they take part in the loss and in every distance, and can only be learned wrong: leave them out",
                    "codec=identity" if unfit and isinstance(patient, DiffusionPatient) else "",
                )


@checks.register("range")
class Range(RecipeCheck):
    """Data that does not come to the height that networks and schedules are made for: about 1, pixels in [-1, 1]."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        z = patient.encoded
        if z is None:
            return
        if not TOO_SMALL <= patient.height <= FAR_OUT:
            yield Finding(
                "error",
                f"encoded data lies in [{float(z.min()):.4g}, {float(z.max()):.4g}], root mean square {patient.height:.3g} "
                "and not 1",
                "the codec leaves the data as it is, and noise of height 1 "
                + ("never drowns it" if patient.height > 1 else "drowns it at once"),
                "codec=auto" if isinstance(patient, DiffusionPatient) else "",
            )
        report = patient.report
        if report.kind == "image" and report.std is not None and 0 < report.std < FAINT * 127.5:
            yield Finding(
                "warning",
                f"all values of the pictures lie in [{report.low:g}, {report.high:g}] of 255, with a standard deviation of "
                f"{report.std:.2g}",
                "to a network all of them are the same flat picture: floats of 0 to 1 were stored as whole numbers, for instance; "
                "make them again",
            )


@checks.register("duplicates")
class Duplicates(RecipeCheck):
    """Samples that equal another one."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        report = patient.report
        if not report.duplicates or report.low == report.high:
            return
        many = report.duplicates >= MANY_DUPLICATES * report.looked_at
        yield Finding(
            "warning" if many else "hint",
            f"{report.duplicates:,} of {report.looked_at:,} samples equal an earlier one, such as {report.duplicate_examples[0]}",
            "what stands there often is learned by heart first, and is drawn too often: remove the copies",
        )


@checks.register("leak")
class Leak(RecipeCheck):
    """Held-out samples that are in the training data too."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        if patient.held_out is None:
            return
        known = {_digest(sample) for sample in patient.data.x}
        leaked = sum(_digest(sample) in known for sample in patient.held_out.x)
        if leaked:
            yield Finding(
                "warning",
                f"{leaked:,} of {len(patient.held_out):,} held-out samples are in the training data too",
                "the validation loss then rewards learning by heart: remove the duplicates",
            )


@checks.register("unreadable")
class Unreadable(RecipeCheck):
    """Files of the data that could not be read."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        if skipped := patient.report.skipped:
            yield Finding(
                "hint",
                f"{len(skipped):,} files or samples were passed over, such as {skipped[0]}",
                "they are not learned",
            )


@checks.register("few-samples")
class FewSamples(RecipeCheck):
    """So few samples, seen so often, that a network may learn them by heart."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training, report = patient.recipe.training, patient.report
        if patient.count < FEW_SAMPLES:
            told, cause = (
                f"there are only {patient.count} samples",
                "they will be learned by heart, and nothing else: find more",
            )
            if isinstance(patient, DiffusionPatient):
                started = f"{cause}, or start from a model that knows the kind"
                yield Finding("warning", told, started, "start.model=MODEL start.lora.rank=8")
            else:
                yield Finding("warning", told, cause)
            return
        times = training.steps * training.batch_size / patient.count
        if patient.network is None or report.kind == "points" or times < MANY_TIMES:
            return
        weights = sum(p.numel() for p in patient.network.parameters() if p.requires_grad)
        numbers = patient.count * report.values_per_sample
        if weights > numbers:
            steps = max(1, MANY_TIMES * patient.count // training.batch_size - 1)
            yield Finding(
                "warning",
                f"each of {patient.count:,} samples is seen {times:,.0f} times by {weights:,} weights, more than the "
                f"{numbers:,} numbers of the data",
                "such a network can learn the data by heart, and has the time to",
                f"training.steps={steps}",
            )


@checks.register("batch-and-data")
class BatchAndData(RecipeCheck):
    """A batch larger than the data, or a run that does not see all of it."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training, count = patient.recipe.training, patient.count
        if training.batch_size > count:
            yield Finding(
                "warning",
                f"a batch has {training.batch_size:,} samples and the data {count:,}",
                "every step sees some samples several times, which costs time and brings little",
                f"training.batch_size={count}",
            )
        elif training.steps * training.batch_size < count:
            seen = training.steps * training.batch_size
            yield Finding(
                "hint",
                f"the run sees {seen:,} of {count:,} samples",
                "the rest is never learned from",
                f"training.steps={-(-count // training.batch_size)}",
            )


@checks.register("labels")
class Labels(DiffusionCheck):
    """Labels that are unbalanced, without samples, or no labels at all."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        labels = patient.report.labels
        present = {name: count for name, count in labels.items() if count}
        if outside := patient.report.looked_at - sum(labels.values()) if labels else 0:
            yield Finding("error", f"{outside:,} labels lie outside of the {len(labels)} classes", "they name no class")
        if empty := [name for name in labels if name not in present]:
            told = f"{len(empty)} of {len(labels)} labels have no sample, such as {empty[0]!r}"
            yield Finding("hint", told, "what is drawn for them is noise of a kind")
        if len(present) < 2:
            return
        most, fewest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        if present[most] >= UNBALANCED * present[fewest]:
            yield Finding(
                "warning",
                f"label {most!r} has {present[most]:,} samples and {fewest!r} {present[fewest]:,}",
                "the rare ones are learned last and copied first: find more of them, or repeat them in the data",
            )


@checks.register("labels-shifted")
class LabelsShifted(DiffusionCheck):
    """Labels that belong to the sample before or after."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        if patient.data.labels is None or not patient.in_memory or patient.count < FEW_SAMPLES:
            return
        nearest, labels = patient.nearest[0], patient.data.labels
        own, chance = agreement(labels, nearest), _chance(labels)
        best, found = _slipped(labels, nearest)
        if best:
            yield Finding(
                "error",
                f"{own:.0%} of samples have the label of their nearest neighbour, as by chance ({chance:.0%}); with the labels "
                f"moved by {abs(best)} {'down' if best > 0 else 'up'} it is {found:.0%}",
                "the table of labels has slipped against the samples: a header read as a label, or a sample missing",
            )


@checks.register("labels-at-random")
class LabelsAtRandom(DiffusionCheck):
    """Labels that say nothing of the samples."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        if patient.data.labels is None or not patient.in_memory or patient.count < FEW_SAMPLES:
            return
        nearest, near = patient.nearest
        labels = patient.data.labels[: len(nearest)]
        own, chance, count = agreement(labels, nearest), _chance(labels), len(labels)
        margin = 3 * (chance * (1 - chance) / count) ** 0.5
        rare = count < MANY_OF_A_LABEL * len(labels.unique())
        if rare or near > NEIGHBOURS_TELL or margin > LITTLE * (1 - chance) or own - chance > margin:
            return
        if _slipped(patient.data.labels, nearest)[0]:
            return
        mixed = "the labels were mixed up, or are those of other samples: look at a few of each with `unnoise data`"
        yield Finding(
            "warning",
            f"{own:.0%} of samples have the label of their nearest neighbour, as by chance ({chance:.0%})",
            mixed if near < NEIGHBOURS_ARE_ALIKE else f"it may be that {mixed.partition(':')[0]}, or that they tell of what a "
            "distance does not show",
        )  # fmt: skip


def _slipped(labels: Tensor, nearest: Tensor) -> tuple[int, float]:
    """By how many places labels have slipped, and how often neighbours agree where they stand right; 0 where they have not."""
    own, chance = agreement(labels, nearest), _chance(labels)
    best = max(SHIFTS, key=lambda shift: agreement(labels.roll(shift), nearest))
    found = agreement(labels.roll(best), nearest)
    # Five standard errors of a share of so many: never by chance, and only where labels as they stand say nothing.
    error = 5 * (0.25 / len(nearest)) ** 0.5
    return (best, found) if found - own > 2 * error and own - chance < error else (0, own)


def agreement(labels: Tensor, nearest: Tensor) -> float:
    """The share of samples whose nearest neighbour has the same label.

    Args:
        labels: Of all samples, shape (N,).
        nearest: The number of the nearest other sample of the first n, shape (n,).
    """
    return float((labels[: len(nearest)] == labels[nearest]).double().mean())


def _chance(labels: Tensor) -> float:
    """How often two samples have the same label."""
    shares = labels.unique(return_counts=True)[1].double() / len(labels)
    return float(shares.square().sum())


def _digest(sample: Tensor) -> bytes:
    return hashlib.blake2b(sample.contiguous().numpy().tobytes(), digest_size=16).digest()
