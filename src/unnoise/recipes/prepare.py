"""A run before its first step: the data is loaded, and what the recipe leaves open is settled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..blueprint import Blueprint
from ..codecs.autoencoder import AutoencoderCodec
from ..codecs.identity import IdentityCodec
from ..codecs.stored import StoredLatents
from ..data.base import AnyDataset, Progress
from ..training.captions import Captions
from ..training.parallel import told_by_torchrun
from .codec_folder import settled_codec
from .finetune import Start
from .latents import latents_of
from .noising import settled_process
from .recipe import Recipe
from .regions import settled_regions
from .words import settled_words

MOST_MEASURED = 10_000
"""Samples whose spread is measured where a recipe leaves that open."""
MOST_READ = 1_000
"""The same of data that is read as it is needed, at every start."""


@dataclass(frozen=True)
class Learned:
    """Latents that training sees in the place of the data.

    Args:
        train: Those of the training data.
        held_out: Those of the validation data.
        codec: Takes out of them what is learned.
    """

    train: AnyDataset
    held_out: AnyDataset
    codec: StoredLatents


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
        latents: What is learned in the place of the data, where it was encoded before.
    """

    recipe: Recipe
    blueprint: Blueprint
    train: AnyDataset
    held_out: AnyDataset
    skipped: tuple[str, ...]
    start: Start | None = None
    captions: Captions | None = None
    notes: tuple[str, ...] = ()
    latents: Learned | None = None


def prepare(recipe: Recipe, progress: Progress | None = None) -> Prepared:
    """Loads the data and settles what the recipe leaves open.

    Raises:
        DataError: The data cannot be read or learned from.
        IncompatibleParts: The parts cannot work together.
        ModelFolderError: There is no model where the run is to start from one.
    """
    start = None if recipe.start is None else Start(recipe.start)
    codec = None if recipe.codec is None else settled_codec(recipe.codec)  # before minutes go into the data
    data = recipe.data.load(progress)
    data.check()
    spec = data.spec
    if start is not None:
        data, spec = start.label(data)
    train, held_out = data.split(recipe.training.validation_share, recipe.seed)
    if len(train) == 0:
        train.check()
    sigma_data = recipe.denoiser.sigma_data
    measured = train.part(MOST_READ) if codec is None or sigma_data == "auto" else None
    if codec is None:
        assert measured is not None
        codec = IdentityCodec.pixels() if data.spec.kind == "image" else IdentityCodec.standardizing(measured.x)
    where, known = (
        str(getattr(recipe.data, "path", "the data")),
        start.model.blueprint.text if start is not None else None,
    )
    words = settled_words(recipe.conditioning, train, where, known)
    there = start.model.blueprint.regions if start is not None else None
    process = settled_process(recipe.process, codec.shape(spec.shape), recipe.network)
    blueprint = Blueprint(
        spec,
        codec,
        process,
        recipe.denoiser.name,
        1.0,
        recipe.denoiser.learned_variance,
        recipe.network if words.text is None else words.text.fitted(recipe.network),
        recipe.denoiser.self_conditioning,
        words.text,
        settled_regions(recipe.conditioning, train, where, there),
    )
    latents = _learned(recipe, blueprint, data, progress)
    if sigma_data == "auto":
        assert measured is not None
        some = measured.x[:MOST_MEASURED]
        z = (
            codec.encode(some)
            if latents is None
            else latents.codec.encode(latents.train.part(len(some)).x[: len(some)])
        )
        sigma_data = round(float(z.double().std()), 6)
    blueprint = replace(blueprint, sigma_data=float(sigma_data))
    settled = replace(
        recipe,
        codec=recipe.codec or codec,
        process=process,
        denoiser=replace(recipe.denoiser, sigma_data=float(sigma_data)),
    )
    return Prepared(
        settled, blueprint, train, held_out, data.skipped, start, words.captions, words.notes, latents
    )  # fmt: skip


def _learned(recipe: Recipe, blueprint: Blueprint, data: AnyDataset, progress: Progress | None) -> Learned | None:
    """The latents of the data, once it is known that the network can take them; None where there are none, or none are kept."""
    codec = blueprint.codec
    if not isinstance(codec, AutoencoderCodec):
        return None
    blueprint.build()
    device = recipe.machine.torch_device(told_by_torchrun().local_rank)
    found = latents_of(codec, data, device, progress)
    share = recipe.training.validation_share, recipe.seed
    return None if found is None else Learned(*found.data.split(*share), found.codec)
