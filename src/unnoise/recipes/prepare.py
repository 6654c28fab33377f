"""A run before its first step: the data is loaded, and what the recipe leaves open is settled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..blueprint import Blueprint
from ..codecs.identity import IdentityCodec
from ..data.base import AnyDataset, Progress
from ..training.captions import Captions
from .codec_folder import settled_codec
from .finetune import Start
from .recipe import Recipe
from .words import settled_words

MOST_MEASURED = 10_000
"""Samples whose spread is measured where a recipe leaves that open."""
MOST_READ = 1_000
"""The same of data that is read as it is needed, at every start."""


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Args:
        recipe: With measured values in the place of "auto".
        blueprint: What the model is made of.
        train: The training data.
        held_out: The validation data; empty to validate on the training data.
        skipped: What could not be read, one line each.
        start: The model that the run starts from, where there is one.
        captions: How the data's captions are drawn, where they are learned.
        notes: What a person should know of it.
    """

    recipe: Recipe
    blueprint: Blueprint
    train: AnyDataset
    held_out: AnyDataset
    skipped: tuple[str, ...]
    start: Start | None = None
    captions: Captions | None = None
    notes: tuple[str, ...] = ()


def prepare(recipe: Recipe, progress: Progress | None = None) -> Prepared:
    """Loads the data and settles what the recipe leaves open.

    Raises:
        DataError: The data cannot be read or learned from.
        IncompatibleParts: The parts cannot work together.
        ModelFolderError: There is no model where the run is to start from one.
    """
    start = None if recipe.start is None else Start(recipe.start)
    data = recipe.data.load(progress)
    data.check()
    spec = data.spec
    if start is not None:
        data, spec = start.label(data)
    train, held_out = data.split(recipe.training.validation_share, recipe.seed)
    if len(train) == 0:
        train.check()
    codec = None if recipe.codec is None else settled_codec(recipe.codec)
    sigma_data = recipe.denoiser.sigma_data
    measured = train.part(MOST_READ) if codec is None or sigma_data == "auto" else None
    if codec is None:
        assert measured is not None
        codec = IdentityCodec.pixels() if data.spec.kind == "image" else IdentityCodec.standardizing(measured.x)
    if sigma_data == "auto":
        assert measured is not None
        sigma_data = round(float(codec.encode(measured.x[:MOST_MEASURED]).double().std()), 6)
    where, known = (
        str(getattr(recipe.data, "path", "the data")),
        start.model.blueprint.text if start is not None else None,
    )
    words = settled_words(recipe.conditioning, train, where, known)
    blueprint = Blueprint(
        spec,
        codec,
        recipe.process,
        recipe.denoiser.name,
        float(sigma_data),
        recipe.denoiser.learned_variance,
        recipe.network if words.text is None else words.text.fitted(recipe.network),
        recipe.denoiser.self_conditioning,
        words.text,
    )
    settled = replace(
        recipe, codec=recipe.codec or codec, denoiser=replace(recipe.denoiser, sigma_data=float(sigma_data))
    )
    return Prepared(settled, blueprint, train, held_out, data.skipped, start, words.captions, words.notes)
