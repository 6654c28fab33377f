"""How much a denoiser errs at each noise level, beside the least that is possible, or beside another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...data.base import Dataset
from ...denoisers.base import Condition, Denoiser
from ...denoisers.linear import LinearDenoiser
from ...errors import IncompatibleParts
from ...model import Model
from ...objectives.base import Objective
from ...objectives.hybrid import HybridObjective
from ...objectives.mse import MSEObjective
from ...training.captions import Captions, whole_condition
from ...training.validation import Strata, Validation, bayes_floor
from ..recipe import load_recipe, read_values
from ..run_data import recipe_beside
from ..words import captions_again
from .real import RealData

TRIPLES = 1024
MOST = 8192
"""Samples of which mean and covariance are taken."""
ALIKE = 0.05
"""A loss above another by this share of it at most is taken for no worse."""
LINEAR = "the best linear denoiser of the data"


@dataclass(frozen=True)
class Reference:
    """What a denoiser is held against.

    Args:
        name: What it is called in a sentence.
        loss: Of it, on the same samples with the same noise.
    """

    name: str
    loss: Strata


@dataclass(frozen=True)
class Levels:
    """The loss of a denoiser by noise level.

    Args:
        loss: On samples that it did not learn from, where there are some.
        floor: Below which no denoiser of the training data can come; None where it is not known.
        seen: Whether the samples are those that it learned from.
        reference: What it is held against in place of the floor; None where that is all that is wanted.
        notes: What a person should know of the comparison.
    """

    loss: Strata
    floor: Strata | None
    seen: bool
    reference: Reference | None = None
    notes: tuple[str, ...] = ()

    @property
    def excess(self) -> tuple[float, ...]:
        """The loss above the reference's, as a share of that; where there is none, above the floor; at each level.

        Losses differ between levels by what can be known there: that of a reference differs alike, and a share says what is
        this denoiser's own. Floors of finite data reach 0 where there is little noise, so that shares of them say nothing.
        """
        if self.reference is not None:
            pairs = zip(self.loss.by_time, self.reference.loss.by_time, strict=True)
            return tuple(own / other - 1 if other > 0 else 0.0 for own, other in pairs)
        floor = (0.0,) * len(self.loss.by_time) if self.floor is None else self.floor.by_time
        return tuple(own - least for own, least in zip(self.loss.by_time, floor, strict=True))

    @property
    def worst(self) -> float:
        """The time at which the excess is largest."""
        return self.loss.t[max(range(len(self.loss.t)), key=lambda i: self.excess[i])]

    @property
    def sentence(self) -> str:
        """Where it errs most, for a person."""
        if self.reference is None:
            return f"It errs most at t = {self.worst:.2f}."
        most, name = max(self.excess), self.reference.name
        if most > ALIKE:
            return f"It errs most at t = {self.worst:.2f}, where its loss is {1 + most:.2f} times that of {name}."
        advice = ": hold it against another model (--reference)" if name == LINEAR else ""
        return f"At no noise level does it err more than {name}{advice}."

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        floor = None if self.floor is None else list(self.floor.by_time)
        other = self.reference
        return {
            "t": list(self.loss.t), "loss": list(self.loss.by_time), "floor": floor, "seen": self.seen,
            "reference": None if other is None else {"name": other.name, "loss": list(other.loss.by_time)},
            "worst": self.worst,
        }  # fmt: skip


def measure_levels(model: Model, real: RealData, reference: Model | None = None) -> Levels:
    """The loss of a model by noise level, as its run would have measured it; of the hybrid objective, the squared error.

    Where neither a reference is given nor the floor is known, the model is held against the best linear denoiser of the data
    that it learned.

    Args:
        model: With the recipe of its run beside it, or trained by plain mean squared error for all that is known.
        real: The data; what was held out is taken where there is some.
        reference: Another model of such data and of the same process, whatever it predicts.

    Raises:
        IncompatibleParts: The reference is of another process, of other data or labels, or of other latents.
    """
    data = real.held_out if real.held_out is not None and len(real.held_out) else real.train
    codec, denoiser = model.blueprint.codec, model.denoiser
    objective, captions = _learned_by(model, data)
    validation = Validation(data, codec, denoiser, objective, TRIPLES, captions=captions)
    # The floor is that of the data that was learned, by label at most; it bounds the loss on that data only.
    known = data is real.train and captions is None
    floor = bayes_floor(data, codec, denoiser, objective, TRIPLES) if known else None
    held_against: Reference | None = None
    notes: tuple[str, ...] = ()
    if reference is not None:
        _refuse_unlike(model, reference, data)
        held_against, notes = _beside_model(validation, model, reference, data), _other_data(model, reference)
    elif floor is None:
        count = min(len(real.train), MOST)
        learned = codec.encode(real.train.x[torch.arange(count) * len(real.train) // count])
        held_against = Reference(LINEAR, validation.floor(LinearDenoiser.of(learned, denoiser.schedule)))
    return Levels(validation.loss(denoiser), floor, data is real.train, held_against, notes)


def _learned_by(model: Model, data: Dataset) -> tuple[Objective, Captions | None]:
    """What a model learned by, and how it read the captions of the data, where it read any."""
    recipe = recipe_beside(model)
    if recipe is None:
        return MSEObjective(), None
    settled = load_recipe(read_values(recipe))
    objective = settled.objective
    if isinstance(objective, HybridObjective):  # what it is held against is known of the squared error alone
        objective = replace(objective, vlb_weight=0.0)
    words = None if data.texts is None else captions_again(settled.conditioning, model.blueprint.text)
    return objective, words


def _beside_model(validation: Validation, model: Model, reference: Model, data: Dataset) -> Reference:
    """The loss of another model, which is asked in its own words, by the objective of the model."""
    captions = _learned_by(reference, data)[1]
    cond = whole_condition(validation.data, captions, reference.denoiser)
    loss = validation.floor(Moved(reference.denoiser), cond or {})
    return Reference(str(reference.path or "the reference"), loss)


def _other_data(model: Model, reference: Model) -> tuple[str, ...]:
    if model.trained.get("data") == reference.trained.get("data"):
        return ()
    return ("the reference learned other data, or another share of it: it may have seen what it is tried on",)


def _refuse_unlike(model: Model, reference: Model, data: Dataset) -> None:
    name, some = f"--reference {reference.path}", data.x[:4]
    if reference.spec.shape != model.spec.shape or reference.spec.class_names != model.spec.class_names:
        raise IncompatibleParts(
            f"{name} makes {_what(reference)} and not {_what(model)}: give a model of the same data"
        )
    own, other = model.blueprint.codec.encode(some), reference.blueprint.codec.encode(some)
    if own.shape != other.shape or not torch.allclose(own, other.to(own), rtol=1e-4, atol=1e-4):
        raise IncompatibleParts(
            f"{name} works on other latents, or on data scaled otherwise: give a model with the same codec"
        )
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    mine, theirs = model.denoiser.schedule, reference.denoiser.schedule
    if not all(
        torch.allclose(getattr(mine, each)(t), getattr(theirs, each)(t), rtol=1e-6) for each in ("alpha", "sigma")
    ):
        raise IncompatibleParts(f"{name} has the process {theirs} and not {mine}: give a model of the same process")


def _what(model: Model) -> str:
    names = model.spec.class_names
    labels = f"with the labels {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else "without labels"
    return f"samples of shape {tuple(model.spec.shape)} {labels}"


class Moved(Denoiser):
    """A denoiser asked for samples on the processor, wherever it stands itself."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.schedule, self.sigma_data = inner, inner.schedule, inner.sigma_data

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See `Denoiser.forward`."""
        device = next(self.inner.parameters()).device
        told = None if cond is None else {name: value.to(device) for name, value in cond.items()}
        found: Tensor = self.inner(x_t.to(device, torch.float32), t, told)
        return found.to(x_t)
