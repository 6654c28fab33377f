"""How much a denoiser errs at each noise level, beside the least that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...model import Model
from ...objectives.base import Objective
from ...objectives.mse import MSEObjective
from ...training.validation import Strata, Validation, bayes_floor
from ..recipe import load_recipe, read_values
from ..run_data import recipe_beside
from ..words import captions_again
from .real import RealData

TRIPLES = 1024


@dataclass(frozen=True)
class Levels:
    """The loss of a denoiser by noise level.

    Args:
        loss: On samples that it did not learn from, where there are some.
        floor: Below which no denoiser of the training data can come; None where it is not known.
        seen: Whether the samples are those that it learned from.
    """

    loss: Strata
    floor: Strata | None
    seen: bool

    @property
    def excess(self) -> tuple[float, ...]:
        """The loss above the floor, or all of it, at each level."""
        floor = (0.0,) * len(self.loss.by_time) if self.floor is None else self.floor.by_time
        return tuple(a - b for a, b in zip(self.loss.by_time, floor, strict=True))

    @property
    def worst(self) -> float:
        """The time at which the loss lies highest above its floor."""
        return self.loss.t[max(range(len(self.loss.t)), key=lambda i: self.excess[i])]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        floor = None if self.floor is None else list(self.floor.by_time)
        return {"t": list(self.loss.t), "loss": list(self.loss.by_time), "floor": floor, "seen": self.seen}


def measure_levels(model: Model, real: RealData) -> Levels:
    """The loss of a model by noise level, as its run would have measured it.

    Args:
        model: With the recipe of its run beside it, or trained by plain mean squared error for all that is known.
        real: The data; what was held out is taken where there is some.
    """
    recipe = recipe_beside(model)
    settled = None if recipe is None else load_recipe(read_values(recipe))
    objective: Objective = MSEObjective() if settled is None else settled.objective
    data = real.held_out if real.held_out is not None and len(real.held_out) else real.train
    parts = model.blueprint.codec, model.denoiser, objective
    captions = (
        None if settled is None or data.texts is None else captions_again(settled.conditioning, model.blueprint.text)
    )
    validation = Validation(data, *parts, TRIPLES, captions=captions)
    # The floor is that of the data that was learned, by label at most; it bounds the loss on that data only.
    floor = bayes_floor(data, *parts, TRIPLES) if data is real.train and captions is None else None
    return Levels(validation.loss(model.denoiser), floor, data is real.train)
