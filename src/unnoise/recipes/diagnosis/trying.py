"""What a short trial of one batch shows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .base import Finding, RecipeCheck, checks
from .patients import RecipePatient
from .trial import ENOUGH_STEPS, ORDINARY_RATE

ENOUGH_FOR_GRADIENTS = 8
"""Layers that begin at zero hide those before them from the gradient for a step or two each."""
NOT_LEARNED, BLOWN_UP = 0.9, 3.0
"""Shares of the first loss that are left of one batch."""


@checks.register("one-batch")
class OneBatch(RecipeCheck):
    """A network that does not even learn one batch by heart."""

    def can_tell(self, patient: RecipePatient) -> bool:
        """See `Check.can_tell`."""
        return patient.trial is not None and len(patient.trial.losses) >= ENOUGH_STEPS

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        trial = patient.trial
        if trial is None or trial.broken or patient.recipe.training.lr == 0:
            return
        steps, left = len(trial.losses), trial.left
        told = f"after {steps} steps on one and the same batch {left:.2g} of its loss is left"
        if not math.isfinite(left) or left > BLOWN_UP:
            yield Finding(
                "error", told, f"the learning rate of {trial.rate:g} is too high: the steps overshoot",
                f"training.lr={min(trial.rate / 30, ORDINARY_RATE):.2g}",
            )  # fmt: skip
        elif steps >= ENOUGH_STEPS and left > NOT_LEARNED and trial.with_ordinary_rate is not None:
            other = trial.with_ordinary_rate
            if other < NOT_LEARNED:
                yield Finding(
                    "error",
                    f"{told}, and {other:.2g} with AdamW at {ORDINARY_RATE:g}",
                    f"the learning rate of {trial.rate:g} is too {'low' if trial.rate < ORDINARY_RATE else 'high'}",
                    f"training.optimizer=adamw training.lr={ORDINARY_RATE:g}",
                )
            else:
                yield Finding(
                    "error",
                    f"{told}, whatever the learning rate",
                    "the network does not learn: it is cut off, frozen, or too small to tell the samples apart",
                )


@checks.register("gradients")
class Gradients(RecipeCheck):
    """Weights that get no gradient, or one that is no number."""

    def can_tell(self, patient: RecipePatient) -> bool:
        """See `Check.can_tell`."""
        return patient.trial is not None and len(patient.trial.losses) >= ENOUGH_FOR_GRADIENTS

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        trial = patient.trial
        if trial is None:
            return
        if trial.broken:
            yield Finding(
                "error",
                f"the gradient of {_named(trial.broken)} is not finite at step {len(trial.losses)}",
                "the first such step makes every weight NaN: the learning rate is far too high, or the network divides by 0",
                f"training.lr={min(trial.rate / 30, ORDINARY_RATE):.2g}",
            )
        elif trial.dead and len(trial.losses) >= ENOUGH_FOR_GRADIENTS:
            yield Finding(
                "warning",
                f"the gradient of {_named(trial.dead)} was exactly 0 in {len(trial.losses)} steps",
                "these weights stay what they were at the beginning: nothing that they compute reaches the loss",
            )


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
