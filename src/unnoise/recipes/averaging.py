"""The averages of a run: snapshots while it is trained, and afterwards a model of any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadOption, RunFolderError, UnknownName
from ..model import Model
from ..objectives.mse import preconditioned
from ..training.averages import PowerAverage
from ..training.checkpoint import checkpoints, load_checkpoint, newest_whole, save_checkpoint
from ..training.posthoc import Profile, Reconstruction, reconstruct
from ..training.state import TrainState
from ..training.validation import Validation
from .recipe import Recipe, load_recipe, read_values
from .run_data import run_data
from .words import captions_again

SNAPSHOTS = "snapshots"
LENGTHS = (0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)
"""Which a sweep looks at where nothing else is said."""


def keep_snapshot(state: TrainState, folder: Path) -> None:
    """Stores the averages of a run where it stands, if that is due; all processes call this.

    Raises:
        OSError: The disk is full, or may not be written to.
    """
    if state.settings.snapshots.due(state.step, state.settings.steps):
        tensors = state.snapshot()
        if state.processes.first:
            save_checkpoint(folder / SNAPSHOTS, tensors, state.step, {})


def forget_later(folder: Path, step: int) -> None:
    """Removes the snapshots of later steps: a run that goes on from here makes them again."""
    for path in checkpoints(folder / SNAPSHOTS):
        if int(path.stem) > step:
            path.unlink(missing_ok=True)


def size_told(recipe: Recipe, parameters: int) -> str | None:
    """What snapshots take of the disk in the end, in words; None where there are none."""
    plan = recipe.training.snapshots
    if not plan.every:
        return None
    count, size = plan.count(recipe.training.steps), plan.size(parameters)
    return f"{count:,} of {_bytes(size)}, {_bytes(count * size)} in all"


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@dataclass(frozen=True)
class Made:
    """An average that was made after training.

    Args:
        model: With its weights.
        error: What its profile lacks, as a share of the profile's own root mean square.
    """

    model: Model
    error: float


@dataclass(frozen=True)
class Swept:
    """One length of a sweep: the validation loss with it, and the error of its profile."""

    length: float
    loss: float
    error: float


class RunAverages:
    """The averages of a run, as they stand on the disk.

    Args:
        folder: Of the run.

    Raises:
        RunFolderError: It is no run folder, or nothing was saved there yet.
        ModelFolderError: Its model is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "recipe.yaml").is_file():
            raise RunFolderError(f"{folder} is no run folder: expected one that `unnoise train` made")
        self.recipe = load_recipe(read_values(self.folder / "recipe.yaml"))
        self.snapshots = checkpoints(self.folder / SNAPSHOTS)[::-1]
        self.base = Model.load(self.folder)

    @property
    def names(self) -> list[str]:
        """Of the averages that were kept while it was trained; the first is the run's model."""
        return list(self.recipe.training.averages)

    @cached_property
    def profiles(self) -> list[Profile]:
        """What is stored, by step, then by length.

        Raises:
            RunFolderError: Nothing is.
        """
        if not self.snapshots:
            raise RunFolderError(
                f"{self.folder} holds no snapshots, of which other lengths are made: train with training.snapshots.every=N"
            )
        lengths = self.recipe.training.snapshots.lengths
        return [Profile(int(path.stem), length) for path in self.snapshots for length in lengths]

    def fit(self, length: float) -> Reconstruction:
        """How the average of a length is made of those that are stored, at the step of the last snapshot.

        Raises:
            BadOption: There is no power average of this length.
            RunFolderError: Nothing is stored.
        """
        return reconstruct(self.profiles, Profile(self.profiles[-1].step, PowerAverage(length).length))

    def of_length(self, length: float) -> Made:
        """The model whose weights are the power average of a length.

        Args:
            length: Standard deviation of the profile, as a share of the run.

        Raises:
            BadOption: There is no power average of this length.
            RunFolderError: Nothing is stored, or it is damaged.
        """
        found = self.fit(length)
        lengths = len(self.recipe.training.snapshots.lengths)
        total: dict[str, Tensor] = {}
        for i, path in enumerate(self.snapshots):
            tensors = _whole(path)
            for profile, share in zip(
                self.profiles[i * lengths : (i + 1) * lengths],
                found.coefficients[i * lengths : (i + 1) * lengths],
                strict=True,
            ):
                prefix = f"{PowerAverage(profile.length).name}/"
                for name, tensor in tensors.items():
                    if name.startswith(prefix):
                        sum_ = total.setdefault(
                            name.removeprefix(prefix), torch.zeros_like(tensor, dtype=torch.float64)
                        )
                        sum_.add_(tensor, alpha=float(share))
        name = PowerAverage(length).name
        return Made(
            self._model(total, self.profiles[-1].step, {"average": name, "profile_error": found.error}), found.error
        )

    def named(self, name: str) -> Model:
        """The model whose weights are an average that was kept while it was trained, as of the last checkpoint.

        Raises:
            BadOption: The run keeps no such average.
            RunFolderError: No checkpoint is left.
        """
        if name not in self.names:
            raise BadOption(str(UnknownName("average of this run", name, self.names)))
        found, _ = newest_whole(self.folder / "checkpoints")
        if found is None:
            raise RunFolderError(f"no whole checkpoint is left in {self.folder}, which would hold its averages")
        weights = found.part("ema/" if name == self.names[0] else f"{name}/")
        return self._model(weights, found.step, {"average": name})

    def _model(self, weights: Mapping[str, Tensor], step: int, facts: Mapping[str, Any]) -> Model:
        """The run's model, with other weights."""
        model = Model.load(self.folder)
        network = preconditioned(model.denoiser).network
        assert network is not None
        held = network.state_dict()
        if model.adapter is not None or not weights or not set(weights) <= set(held):
            raise RunFolderError(f"{self.folder} trained adapters, of which no other averages can be made")
        network.load_state_dict({**held, **{name: w.to(held[name].dtype) for name, w in weights.items()}})
        known: dict[str, Any] = {
            key: model.trained[key] for key in ("recipe", "data", "data_size", "seed") if key in model.trained
        }
        seen = step * self.recipe.training.batch_size
        model.trained = {**known, "steps": step, "samples_seen": seen, **facts}
        return model

    def sweep(
        self, lengths: Sequence[float] = LENGTHS, progress: Callable[[int, int], None] | None = None
    ) -> list[Swept]:
        """The validation loss of the run with averages of several lengths.

        Args:
            lengths: Which.
            progress: Told how many are done, and how many there are.

        Raises:
            RunFolderError: Nothing is stored, or the data cannot be found any more.
        """
        for length in lengths:  # all are checked before the first is made
            self.fit(length)
        data = run_data(self.base)
        if data is None or data.changed:
            raise RunFolderError(f"the data of the run in {self.folder} is not what it was: no loss can be told")
        seen = data.held_out if len(data.held_out) else data.train
        size = max(self.recipe.training.validation_size, 4096)
        validation = Validation(
            seen,
            self.base.blueprint.codec,
            self.base.denoiser,
            self.recipe.objective,
            size,
            self.recipe.seed,
            captions_again(self.recipe.conditioning, self.base.blueprint.text),
        )
        found = []
        for i, length in enumerate(lengths):
            made = self.of_length(length)
            found.append(Swept(length, validation.loss(made.model.denoiser).loss, made.error))
            if progress is not None:
                progress(i + 1, len(lengths))
        return found


def best_of(swept: Sequence[Swept]) -> Swept:
    """The length with the lowest validation loss."""
    return min(swept, key=lambda each: each.loss)


def draw_sweep(swept: Sequence[Swept], title: str | None = None) -> Any:
    """The validation loss of each length, as a picture.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    from ..pictures.curves import lines

    best = best_of(swept)
    curves = {
        "": ([each.length for each in swept], [each.loss for each in swept]),
        f"best: {best.length:g}": ([best.length], [best.loss]),
    }
    return lines(curves, "length of the average, as a share of the run", "validation loss", title, log_x=True)


def _whole(path: Path) -> Mapping[str, Tensor]:
    try:
        tensors = load_checkpoint(path).tensors
    except ValueError as error:
        raise RunFolderError(f"a snapshot is damaged ({error}): remove it, and the others make up for it") from None
    assert tensors is not None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise RunFolderError(f"a snapshot is not of finite numbers ({path.name}): remove it")
    return tensors
