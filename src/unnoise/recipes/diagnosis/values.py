"""What may be wrong with the values of the data: far out, all but constant, or laid out otherwise than one thinks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.inspect import FEW_SAMPLES
from .base import Finding, RecipeCheck, checks
from .patients import RecipePatient

GAP = 50.0
"""How many times further out than all others samples must lie: heavy tails have no such gap."""
FAR_FROM_ALL, FAR_ALIKE = 0.01, 0.1
"""The largest share of the samples that can; of those equally far out, as where one number stands for what is missing."""
SQUEEZED = 0.1
"""Of the height of the data: what is left to the others where a few samples are that far out."""
MANY_CHANNELS = 64
"""More than these are looked at together: by itself, one of so many has a gap by chance."""
FEW_STEPS, TINY = 100.0, 1e-5
"""Steps of float32 in a standard deviation below which rounding is learned, and a standard deviation that is hardly meant."""
_MOST_VALUES = 2**20


@dataclass(frozen=True)
class FarOut:
    """Samples that lie far outside of all others.

    Args:
        samples: Their numbers.
        value: The one that lies furthest out, of the first of them.
        times: How many times further out than all others they lie at least.
        left: The spread of the others as a share of that of all data.
    """

    samples: tuple[int, ...]
    value: float
    times: float
    left: float


def far_out(x: Tensor) -> FarOut | None:
    """The samples that a gap separates from all others, by their distance from the middle; None where there is no such gap.

    Args:
        x: Of shape (N, C, ...), floating-point.
    """
    rows = x.reshape(len(x), x.shape[1], -1)
    middle = rows[:: max(1, rows.numel() // _MOST_VALUES)].transpose(0, 1).flatten(1).median(1).values
    at_once = max(1, _MOST_VALUES // max(1, rows[0].numel()))
    away = torch.cat([(part - middle[:, None]).abs().amax(2) for part in rows.split(at_once)])  # (N, C)
    usual = away.median(0).values
    # Where most samples stand still, any that does not would seem far out.
    live = (usual > 0).nonzero().flatten().tolist()
    if len(live) > MANY_CHANNELS:
        together = (away[:, live] / usual[live]).max(1)
        columns = [(live[int(together.indices[together.values.argmax()])], together.values)]
    else:
        columns = [(channel, away[:, channel]) for channel in live]
    for channel, column in columns:
        count, times = _beyond_a_gap(column)
        if not count:
            continue
        samples = sorted(column.topk(count).indices.tolist())
        first, mine = rows[samples[0], channel], rows[:, channel].double()
        others = torch.ones(len(x), dtype=torch.bool)
        others[samples] = False
        left = float(mine[others].std(correction=0) / mine.std(correction=0))
        return FarOut(tuple(samples), float(first[(first - middle[channel]).abs().argmax()]), times, left)
    return None


def _beyond_a_gap(column: Tensor) -> tuple[int, float]:
    """How many samples lie far outside of all others, and how many times further; 0 where none do.

    Args:
        column: How far out each lies, shape (N,).
    """
    far = column.topk(int(FAR_ALIKE * len(column)) + 1).values.double()
    gaps, counts = far[:-1] / far[1:], torch.arange(1, len(far))
    few = (counts <= max(1, int(FAR_FROM_ALL * len(column)))) | (far[:-1] == far[0])
    found = (gaps > GAP) & torch.isfinite(gaps) & few
    if not bool(found.any()):
        return 0, 0.0
    last = int(found.nonzero()[-1])
    return last + 1, float(gaps[last])


@checks.register("outlier")
class Outlier(RecipeCheck):
    """A few samples that lie far outside of all others."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        x = patient.data.x
        if not x.dtype.is_floating_point or len(x) < FEW_SAMPLES or patient.report.not_finite:
            return
        found = far_out(x)
        if found is None:
            return
        numbers, count = [int(patient.numbers[each]) for each in found.samples], len(found.samples)
        who = f"sample {numbers[0]} has the value {found.value:.6g}"
        who += "" if count == 1 else f", and {count - 1} more such as sample {numbers[1]} are as strange"
        yield Finding(
            "error" if found.left < SQUEEZED else "warning",
            f"{who}: {found.times:.2g} times further out than all others",
            f"brought to one height with it, all others keep {found.left:.2g} of theirs: remove it, and what stands for a missing "
            "value",
        )


@checks.register("tiny-spread")
class TinySpread(RecipeCheck):
    """Data, or a channel of it, that all but never changes."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        x = patient.data.x
        if not x.dtype.is_floating_point or patient.report.not_finite:
            return
        rows = x[:: max(1, x.numel() // (4 * _MOST_VALUES))].double().transpose(0, 1).flatten(1)
        mean, std = rows.mean(1), rows.std(1, correction=0)
        step = torch.finfo(torch.float32).eps * mean.abs()
        rounded = (std > 0) & (std < FEW_STEPS * step)
        tiny = (std > 0) & (std < TINY) & ~rounded
        for severity, which in (("warning", rounded), ("hint", tiny)):
            if not bool(which.any()):
                continue
            first, count = int(which.nonzero()[0]), int(which.sum())
            who = f"channel {first}" if count == 1 else f"{count} of {len(std)} channels, first number {first},"
            told = f"{who} changes by no more than {float(std[first]):.2g} around {float(mean[first]):.6g} (standard deviation)"
            why = (
                f"float32 has {float(std[first] / step[first]):.2g} steps in it there: what is learned is the rounding; subtract "
                "what all have in common before it is saved"
                if severity == "warning"
                else "the codec blows it up to 1: where it is the rounding of something constant, leave it out"
            )
            yield Finding("warning" if severity == "warning" else "hint", told, why)


@checks.register("grey")
class Grey(RecipeCheck):
    """Grey pictures that are stored in colour."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        x, recipe = patient.data.x, patient.recipe
        # To a codec or a model that asks for three.
        bound = getattr(getattr(recipe, "codec", None), "learned", False) or not recipe.begins_anew
        if x.ndim < 3 or x.shape[1] != 3 or bound:
            return
        if not bool((x[:, :1] == x[:, 1:]).all()) or bool((x == x[:1]).all()):
            return
        option = hasattr(recipe.data, "channels")
        yield Finding(
            "hint",
            f"the three channels of all {len(x):,} pictures are equal",
            "grey is learned three times over, and drawn with a tint"
            + ("" if option else ": save one channel, of shape (N, 1, ...)"),
            "data.channels=1" if option else "",
        )


@checks.register("channels-last")
class ChannelsLast(RecipeCheck):
    """Arrays whose channels seem to come last."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        told, _, fix = patient.data.spec.channels_last.partition(": ")
        if told:
            height = patient.data.spec.shape[0]
            yield Finding(
                "warning" if patient.network is not None else "error",
                told,
                f"each of {height} rows counts as a channel, with a scale of its own and no place in a picture: {fix}",
            )
