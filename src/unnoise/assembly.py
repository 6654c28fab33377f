"""What stands in a model's folder, put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .blueprint import Blueprint
from .conditioning.text.conditioning import encoder_of
from .conditioning.text.network import together
from .denoisers.base import Denoiser
from .errors import ModelFolderError, UnnoiseError
from .model_folder import MODEL_FILE, read_folder, read_parts
from .objectives.mse import preconditioned
from .options import build
from .sampling import SamplingSettings
from .shipped import folder_of
from .training.checkpoint import newest_whole


class Assembled(NamedTuple):
    """The parts of a model; see `Model`."""

    blueprint: Blueprint
    denoiser: Denoiser
    sampling: SamplingSettings
    trained: dict[str, Any]


def built(blueprint: Blueprint, weights: Mapping[str, Tensor]) -> Denoiser:
    """The denoiser of a blueprint with these weights.

    Raises:
        RuntimeError: They are not those of its network.
    """
    denoiser = blueprint.build()
    network = preconditioned(denoiser).network
    assert network is not None
    network.load_state_dict(dict(weights))
    return denoiser


class Found(NamedTuple):
    """What stands where a person points."""

    parts: Assembled
    folder: Path
    """That of the model itself."""
    notes: list[str]
    """What the person should know of how it was found."""


def found(path: str | Path) -> Found:
    """The parts of the model in a folder, or in the run folder around it.

    Where the model of a run is damaged, it is put together from the run's newest whole checkpoint, and notes say so.

    Raises:
        ModelFolderError: There is none, or it is damaged, or of another format.
    """
    folder = folder_of(path)
    inner = folder / "model"
    if (folder / MODEL_FILE).is_file() or not (inner.is_dir() or (folder / "checkpoints").is_dir()):
        return Found(read(folder, str(path)), folder, [])
    try:
        return Found(read(inner, str(path)), inner, [])
    except ModelFolderError as error:
        whole, damaged = newest_whole(folder / "checkpoints")
        if whole is None or "kind" in whole.facts["model"]:  # type: ignore[operator]
            raise  # there is none, or it is that of an autoencoder
        if "start" in whole.facts:  # the rest of the weights stands with the model that the run began with
            raise ModelFolderError(f"{error}; the `unnoise train` that made it makes it again") from None
        described: Mapping[str, Any] = whole.facts["model"]  # type: ignore[assignment]
        parts = assembled(described, whole.part("ema/"), read_parts(inner, described), str(path))
        notes = [str(error), *damaged, f"the model was made again from the checkpoint of step {whole.step}"]
        return Found(parts, inner, notes)


def read(folder: Path, name: str) -> Assembled:
    """The parts of the model in a folder.

    Args:
        folder: Where the description stands.
        name: What the person calls it, for messages.

    Raises:
        ModelFolderError: There is none, or it is damaged, or of another format.
    """
    values, weights = read_folder(folder)
    return joined(values, weights, read_parts(folder, values), name)


def joined(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], parts: Mapping[str, Mapping[str, Tensor]], name: str
) -> Assembled:
    """The same as `assembled`, of weights as they stand in a folder: without those of a text encoder among the network's."""
    return assembled(values, together({}, weights) if "text" in parts else weights, parts, name)


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in bfloat16; whole numbers stay as they are."""
    return {name: each.bfloat16() if each.is_floating_point() else each for name, each in weights.items()}


def assembled(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], parts: Mapping[str, Mapping[str, Tensor]], name: str
) -> Assembled:
    """The parts of a model from its description and its weights.

    Args:
        values: The description.
        weights: Of the network.
        parts: Those of what else it holds; see `read_parts`.
        name: What the person calls it, for messages.

    Raises:
        ModelFolderError: They do not go together.
    """
    try:
        blueprint = Blueprint.of(values, parts)
        if blueprint.codec.learned:
            blueprint = replace(blueprint, codec=blueprint.codec.with_weights(parts["codec"]))
        if blueprint.text is not None:
            weights = {**together(encoder_of(parts["text"])), **weights}
        denoiser = built(blueprint, weights)
        sampling = build(SamplingSettings, values["sampling"], "sampling")
        return Assembled(blueprint, denoiser, sampling, dict(values["trained"]))
    except (UnnoiseError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"the model at {name} cannot be built: {str(error).splitlines()[0]}") from None
