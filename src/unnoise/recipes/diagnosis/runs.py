"""A run with its folder, to be examined. Each part is read or made when it is asked for."""

from __future__ import annotations

import itertools
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...codecs.autoencoder import AutoencoderCodec
from ...data.base import Progress
from ...errors import RunFolderError, SamplingDiverged, UnnoiseError
from ...model import Model
from ...training.checkpoint import Checkpoint, newest_whole
from ...training.machine import MachineSettings
from ..any_recipe import AnyRecipe
from ..autoencoder import AutoencoderRecipe
from ..clip import ClipRecipe
from ..clip_folder import TrainedClip, load_clip
from ..codec_folder import read_codec
from ..metrics import exploded, read_metrics
from ..recipe import Recipe, load_any_recipe, read_values
from ..run_data import RunData, as_begun, data_of
from .patients import RecipePatient, patient_of
from .rates import HIGH_RATES

MOST_SAMPLES, MOST_POINTS = 256, 2048
_AT_ONCE, _POINTS_AT_ONCE = 16, 256
_MOST_SPACED = 1000
_PRIME = 7919  # numbers at such distances stand all over the data, whatever its order


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        made: As its folder holds it.
        module: Its weights.
        trained: How it came to be.
        notes: What was noticed when it was read.
    """

    made: Model | AutoencoderCodec | TrainedClip
    module: nn.Module
    trained: Mapping[str, Any]
    notes: Sequence[str] = ()


def outcome_of(recipe: AnyRecipe, folder: Path) -> Outcome:
    """What came of the run of a recipe.

    Raises:
        ModelFolderError: There is nothing, or it is damaged.
    """
    if isinstance(recipe, ClipRecipe):
        clip = load_clip(folder)
        return Outcome(clip, clip.clip, clip.trained)
    if isinstance(recipe, AutoencoderRecipe):
        codec, values = read_codec(folder)
        return Outcome(codec, codec.autoencoder, values["trained"])
    model = Model.load(folder)
    return Outcome(model, model.denoiser, model.trained, model.notes)


class RunPatient:
    """A run of any kind, by what stands in its folder; nothing of it is changed.

    Args:
        folder: Of the run.
        recipe: As it stands there.
        seconds: How long samples may be drawn, about.
        progress: Told while data is read.
    """

    recipe: AnyRecipe

    def __init__(self, folder: Path, recipe: AnyRecipe, seconds: float, progress: Progress | None = None) -> None:
        self.folder, self.recipe, self.seconds, self._progress = folder, recipe, seconds, progress
        self.lines = read_metrics(self.folder / "metrics.jsonl")

    @property
    def steps_made(self) -> int:
        """By its metrics."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The lines about single steps."""
        return [line for line in self.lines if "loss" in line and "gradient_norm" in line]

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """The lines about validations whose loss is a number."""
        return [line for line in self.lines if math.isfinite(line.get("validation_loss", math.nan))]

    @property
    def went_back(self) -> list[str]:
        """What made the run go back to a checkpoint, a line each."""
        return [str(line["went_back"]) for line in self.lines if "went_back" in line]

    @cached_property
    def exploded(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """See `metrics.exploded`."""
        return exploded(self.lines)

    @property
    def calmer(self) -> list[str]:
        """The options with which a run whose steps went too far may be begun again."""
        training = self.recipe.training
        name = training.optimizer.registered_name  # type: ignore[attr-defined]
        high = HIGH_RATES.get(name, math.inf)
        rate = high / 20 if training.lr > high else training.lr / 3
        clip = [] if training.clip else ["training.clip=1"]
        half = training.steps * (training.batch_size if training.counted_in == "images" else 1) // 2
        warmup = max(min(2 * training.warmup, half), min(100, half))
        return [f"training.lr={rate:.2g}", f"training.warmup={warmup}", *clip]

    def again(self, *options: str) -> str:
        """The command that trains the recipe of this run anew with other options, beside it."""
        names = (f"{self.folder.resolve().name}-{i}" for i in itertools.count(2))
        other = next(place for place in map(self.folder.resolve().with_name, names) if not place.exists())
        place = other if self.folder.is_absolute() else self.folder.parent / other.name
        return shlex.join(["unnoise", "train", str(self.folder / "recipe.yaml"), *options, "--out", str(place)])

    def on(self, *options: str) -> str:
        """The command that goes on with this run, with other options of how it is executed."""
        return shlex.join(["unnoise", "train", str(self.folder / "recipe.yaml"), *options, "--out", str(self.folder)])

    @property
    def try_recipe(self) -> str:
        """The command that looks at the recipe of this run, and tries it."""
        return shlex.join(["unnoise", "doctor", str(self.folder / "recipe.yaml")])

    @cached_property
    def _loaded(self) -> Outcome | UnnoiseError:
        try:
            return outcome_of(self.recipe, self.folder)
        except UnnoiseError as error:
            return error

    @property
    def outcome(self) -> Outcome | None:
        """What came of the run; None where there is nothing."""
        return self._loaded if isinstance(self._loaded, Outcome) else None

    @property
    def why_no_outcome(self) -> str:
        """Why there is nothing; empty where there is something."""
        return "" if isinstance(self._loaded, Outcome) else str(self._loaded)

    @cached_property
    def broken_weights(self) -> tuple[str, ...]:
        """The weights of what was made that are not finite, by name."""
        if self.outcome is None:
            return ()
        return tuple(n for n, p in self.outcome.module.named_parameters() if not bool(torch.isfinite(p).all()))

    @cached_property
    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a line about each damaged one."""
        return newest_whole(self.folder / "checkpoints")

    @cached_property
    def begun(self) -> RecipePatient | UnnoiseError:
        """The recipe of the run, to be examined as if it were begun here; why it cannot be, where it cannot."""
        try:  # it may have been trained elsewhere
            here = replace(self.recipe, machine=MachineSettings(), data=as_begun(self.recipe.data, self.folder))
            return patient_of(here, progress=self._progress)
        except UnnoiseError as error:
            return error

    @cached_property
    def foreign_weight(self) -> str:
        """The first weight in which the newest checkpoint differs from the network of the recipe; empty where none is known to."""
        newest, begun = self.newest[0], self.begun
        if newest is None or not isinstance(begun, RecipePatient) or begun.network is None:
            return ""
        if self.data is not None and self.data.changed:  # which may ask for another network
            return ""
        asked = {name: tuple(p.shape) for name, p in begun.network.named_parameters() if p.requires_grad}
        stored = {name: tuple(tensor.shape) for name, tensor in newest.part("weights/").items()}
        wrong = [name for name in asked.keys() | stored.keys() if asked.get(name) != stored.get(name)]
        return min(wrong, default="")

    @cached_property
    def _data(self) -> RunData | UnnoiseError | None:
        if self.outcome is None:
            return None
        try:
            return data_of(self.recipe, self.outcome.trained.get("data"), self._progress, self.folder)
        except UnnoiseError as error:
            return error

    @property
    def data(self) -> RunData | None:
        """What the run learned from; None where it cannot be read, or nothing came of it."""
        return self._data if isinstance(self._data, RunData) else None

    @property
    def why_no_data(self) -> str:
        """Why the data cannot be read; empty where it can."""
        return str(self._data) if isinstance(self._data, UnnoiseError) else ""


class DiffusionRunPatient(RunPatient):
    """A run of a diffusion model; see `RunPatient`. At least 16 samples are drawn, 256 points."""

    recipe: Recipe

    def sample(self, *options: str) -> str:
        """The command that draws samples of this run with some options."""
        return shlex.join(["unnoise", "sample", str(self.folder), *options])

    @property
    def model(self) -> Model | None:
        """The model of the run; None where there is none."""
        made = None if self.outcome is None else self.outcome.made
        return made if isinstance(made, Model) else None

    @cached_property
    def spacing(self) -> float | None:
        """The distance from a sample to the nearest other one as the model sees them, in the middle; None without data."""
        if self.model is None or self.data is None or len(self.data.train) < 2:
            return None
        z = self.model.blueprint.codec.encode(self.data.train.x[:_MOST_SPACED]).double().flatten(1)
        distances = torch.cdist(z, z).fill_diagonal_(float("inf"))
        return max(float(distances.amin(1).median()), 1e-9)

    @cached_property
    def _drawn(self) -> Tensor | SamplingDiverged | None:
        if self.model is None or self.broken_weights or self.data is None or self.data.changed:
            return None
        began, parts = time.perf_counter(), []
        labels = self.data.train.labels
        points = self.model.spec.kind == "points"
        at_once = _POINTS_AT_ONCE if points else _AT_ONCE
        most = MOST_POINTS if points else MOST_SAMPLES
        for first in range(0, most, at_once):
            asked = None
            if labels is not None and self.model.spec.num_classes:  # as often as in the data
                asked = labels[[(first + i) * _PRIME % len(labels) for i in range(at_once)]].tolist()
            try:
                parts.append(self.model.sample(at_once, label=asked, first=first).tensor)
            except SamplingDiverged as error:
                return error
            if time.perf_counter() - began > self.seconds:
                break
        return torch.cat(parts)

    @property
    def samples(self) -> Tensor | None:
        """Samples as the model is sampled when nothing is said, float64; None where there are none, or no data to hold them to."""
        return self._drawn.double() if isinstance(self._drawn, Tensor) else None

    @property
    def why_no_samples(self) -> str:
        """Why sampling failed; empty where it did not."""
        return str(self._drawn) if isinstance(self._drawn, SamplingDiverged) else ""


def run_patient_of(folder: str | Path, seconds: float = 10.0, progress: Progress | None = None) -> RunPatient:
    """The patient that a run is; see `RunPatient`.

    Raises:
        RunFolderError: The folder holds no run.
    """
    place = Path(folder)
    if not (place / "recipe.yaml").is_file():
        raise RunFolderError(f"{folder} is no run folder: expected one with recipe.yaml in it, or the name of a recipe")
    recipe = load_any_recipe(read_values(place / "recipe.yaml"))
    kind = DiffusionRunPatient if isinstance(recipe, Recipe) else RunPatient
    return kind(place, recipe, seconds, progress)
