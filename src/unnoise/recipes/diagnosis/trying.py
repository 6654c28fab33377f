"""What a short trial of one batch shows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...training.settings import TrainingSettings
from .base import Finding, RecipeCheck, checks
from .patients import RecipePatient
from .rates import HIGH_RATES
from .trial import ENOUGH_STEPS, ORDINARY_CLIP, ORDINARY_RATE, Trial

ENOUGH_FOR_GRADIENTS = 8
"""Layers that begin at zero hide those before them from the gradient for a step or two each."""
NOT_LEARNED, BLOWN_UP = 0.9, 3.0
"""Shares of the first loss that are left of one batch."""
RISEN = 1.1
"""Of the first loss: steps that are too short for a batch never bring it so far up."""
CUT_SHORT, VANISHING = 100.0, 1e-5
"""How many times longer than its limit a gradient must be, and the limit below which Adam's epsilon outweighs what is left."""


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
                why, also = _why_not(trial, patient.recipe.training)
                yield Finding(
                    "error",
                    f"{told}, and {other:.2g} with AdamW at {ORDINARY_RATE:g}",
                    why,
                    f"training.optimizer=adamw training.lr={ORDINARY_RATE:g}{also}",
                )
            else:
                yield Finding(
                    "error",
                    f"{told}, whatever the learning rate",
                    "the network does not learn: it is cut off, frozen, or too small to tell the samples apart",
                )


def _why_not(trial: Trial, training: TrainingSettings) -> tuple[str, str]:
    """Why a batch was not learned that an ordinary optimizer learns, and what must be set beside that one."""
    optimizer, clip = training.optimizer, training.clip
    name = optimizer.registered_name  # type: ignore[attr-defined]
    risen = max(trial.losses) > RISEN * trial.losses[0]
    if clip and trial.norm > CUT_SHORT * clip and not risen and (optimizer.proportional or clip < VANISHING):
        cut = f"training.clip={clip:g} cuts a gradient of norm {trial.norm:.2g} to next to nothing"
        return f"{cut}, and {name} makes no step of it: the loss stands still", f" training.clip={ORDINARY_CLIP:g}"
    # Steps that are as long as the rate says cannot be too short at a rate that hardly any network bears.
    if risen or (not optimizer.proportional and trial.rate > HIGH_RATES.get(name, math.inf)):
        return f"the learning rate of {trial.rate:g} is too high: the steps overshoot", ""
    return f"the learning rate of {trial.rate:g} is too low for {name}: the loss hardly moves", ""


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
