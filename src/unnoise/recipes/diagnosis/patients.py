"""What is examined: a recipe with its data, and a run with its folder. Each part is made when it is asked for."""

from __future__ import annotations

import itertools
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.base import AnyDataset, Dataset, Progress
from ...data.inspect import MOST_LOOKED_AT, DataReport, inspect_data
from ...denoisers.base import Denoiser
from ...errors import BadOption, DataError, RunFolderError, SamplingDiverged, UnnoiseError
from ...model import Model
from ...objectives.mse import preconditioned
from ...training.checkpoint import Checkpoint, newest_whole
from ...training.draws import DrawStream
from ..judging.while_training import check_plan
from ..metrics import read_metrics
from ..noising import stand_in
from ..recipe import Recipe, load_recipe, read_values
from ..run import Prepared, prepare
from ..run_data import RunData, run_data
from .trial import Trial, overfit

MOST_SAMPLES, MOST_POINTS = 256, 2048
_AT_ONCE, _POINTS_AT_ONCE = 16, 256
_MOST_SPACED, _MOST_ENCODED = 1000, 2000
_PRIME = 7919  # numbers at such distances stand all over the data, whatever its order


class RecipePatient:
    """A recipe and its data.

    Args:
        recipe: As it was asked for.
        seconds: How long a trial of one batch may take; 0 for none.
        progress: Told while data is read.

    Raises:
        DataError: There is no data that can be read.
    """

    def __init__(self, recipe: Recipe, seconds: float = 0.0, progress: Progress | None = None) -> None:
        self.seconds = seconds
        self.prepared: Prepared | None = None
        self._unfit: DataError | None = None
        self.recipe = replace(recipe, process=stand_in(recipe.process))
        held_out: AnyDataset | None = None
        try:
            self.prepared = prepare(recipe, progress)
            self.recipe, data, held_out = self.prepared.recipe, self.prepared.train, self.prepared.held_out
        except DataError as error:  # of data that is there, but nothing can be learned from
            self._unfit, data = error, recipe.data.load(progress)
        self.count, self.in_memory = len(data), isinstance(data, Dataset)
        self.data: Dataset = data.part(MOST_LOOKED_AT)
        self.held_out: Dataset | None = (
            held_out.part(MOST_LOOKED_AT) if held_out is not None and len(held_out) else None
        )

    @cached_property
    def report(self) -> DataReport:
        """What the data holds."""
        return inspect_data(self.data)

    @cached_property
    def encoded(self) -> Tensor | None:
        """Data from all over as the model sees it, shape (n, ...), float64; None where it is not fit for it."""
        if self.prepared is None:
            return None
        some = torch.linspace(0, len(self.data) - 1, min(len(self.data), _MOST_ENCODED)).long()
        found = self.prepared.blueprint.codec.encode(self.data.x[some]).double()
        return found if bool(torch.isfinite(found).all()) else None

    @property
    def height(self) -> float:
        """The root mean square of the encoded data: what noise must drown; 1 where it is not known."""
        return 1.0 if self.encoded is None else float(self.encoded.square().mean().sqrt())

    def beginning(self) -> Denoiser:
        """The denoiser as training begins with it, made anew.

        Raises:
            UnnoiseError: Training would refuse to begin.
        """
        if self.prepared is None:
            raise self._unfit or DataError("there is no data")
        denoiser = self.prepared.blueprint.build(self.recipe.seed)
        network = preconditioned(denoiser).network
        if self.prepared.start is not None and network is not None:
            self.prepared.start.begin(network, self.prepared.blueprint, self.recipe.seed)
        return denoiser

    @cached_property
    def denoiser(self) -> Denoiser | None:
        """As training begins with it; None where it would refuse to."""
        try:
            return self.beginning()
        except UnnoiseError:
            return None

    @property
    def device(self) -> torch.device | None:
        """Where it would be trained; None where there is no such device here."""
        try:
            return self.recipe.machine.torch_device()
        except BadOption:
            return None

    @cached_property
    def refusal(self) -> UnnoiseError | None:
        """What training would say instead of beginning; None where it would begin."""
        try:
            self.recipe.machine.torch_device()
            denoiser = self.beginning()
            assert self.prepared is not None
            train, recipe = self.prepared.train, self.recipe
            check_plan(recipe.evaluation, train.spec)
            history = recipe.objective.companion(denoiser.schedule).history
            batch = min(recipe.training.batch_size, len(train), 16)
            stream = DrawStream(
                train,
                self.prepared.blueprint.codec,
                denoiser,
                recipe.objective,
                batch,
                recipe.seed,
                history,
                captions=self.prepared.captions,
            )
            stream.step(0, torch.device("cpu"))
        except UnnoiseError as error:
            return error
        return None

    @cached_property
    def trial(self) -> Trial | None:
        """How one batch was learned; None where nothing was to be tried, or could be."""
        if not self.seconds or self.prepared is None or self.denoiser is None:
            return None
        try:
            return overfit(self.prepared, self.seconds)
        except UnnoiseError:  # a batch that does not fit in memory, for instance: another check says so
            return None


class RunPatient:
    """A run, by what stands in its folder; nothing of it is changed.

    Args:
        folder: Of the run.
        seconds: How long samples may be drawn, about; at least 16 are, 256 points.
        progress: Told while data is read.

    Raises:
        RunFolderError: It holds no run.
    """

    def __init__(self, folder: str | Path, seconds: float = 10.0, progress: Progress | None = None) -> None:
        self.folder, self.seconds, self._progress = Path(folder), seconds, progress
        if not (self.folder / "recipe.yaml").is_file():
            raise RunFolderError(
                f"{folder} is no run folder: expected one with recipe.yaml in it, or the name of a recipe"
            )
        self.recipe: Recipe = load_recipe(read_values(self.folder / "recipe.yaml"))
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

    def again(self, *options: str) -> str:
        """The command that trains the recipe of this run anew with other options, beside it."""
        names = (f"{self.folder.resolve().name}-{i}" for i in itertools.count(2))
        other = next(place for place in map(self.folder.resolve().with_name, names) if not place.exists())
        place = other if self.folder.is_absolute() else self.folder.parent / other.name
        return shlex.join(["unnoise", "train", str(self.folder / "recipe.yaml"), *options, "--out", str(place)])

    @property
    def on(self) -> str:
        """The command that goes on with this run."""
        return shlex.join(["unnoise", "train", str(self.folder / "recipe.yaml"), "--out", str(self.folder)])

    @property
    def try_recipe(self) -> str:
        """The command that looks at the recipe of this run, and tries it."""
        return shlex.join(["unnoise", "doctor", str(self.folder / "recipe.yaml")])

    def sample(self, *options: str) -> str:
        """The command that draws samples of this run with some options."""
        return shlex.join(["unnoise", "sample", str(self.folder), *options])

    @cached_property
    def _loaded(self) -> Model | UnnoiseError:
        try:
            return Model.load(self.folder)
        except UnnoiseError as error:
            return error

    @property
    def model(self) -> Model | None:
        """The model of the run; None where there is none."""
        return self._loaded if isinstance(self._loaded, Model) else None

    @property
    def why_no_model(self) -> str:
        """Why there is no model; empty where there is one."""
        return "" if isinstance(self._loaded, Model) else str(self._loaded)

    @cached_property
    def broken_weights(self) -> tuple[str, ...]:
        """The weights of the model that are not finite, by name."""
        if self.model is None:
            return ()
        return tuple(n for n, p in self.model.denoiser.named_parameters() if not bool(torch.isfinite(p).all()))

    @cached_property
    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and a line about each damaged one."""
        return newest_whole(self.folder / "checkpoints")

    @cached_property
    def _data(self) -> RunData | UnnoiseError | None:
        if self.model is None:
            return None
        try:
            return run_data(self.model, self._progress)
        except UnnoiseError as error:
            return error

    @property
    def data(self) -> RunData | None:
        """What the run learned from; None where it cannot be read, or there is no model."""
        return self._data if isinstance(self._data, RunData) else None

    @property
    def why_no_data(self) -> str:
        """Why the data cannot be read; empty where it can."""
        return str(self._data) if isinstance(self._data, UnnoiseError) else ""

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
