"""Runs a recipe in a run folder: resumes what was begun, writes metrics, pictures, checkpoints and the model.

runs/digits/
├── recipe.yaml         the recipe, with every default written out
├── metrics.jsonl       one line of numbers every few steps
├── tensorboard/        the same for TensorBoard, where it is installed
├── samples/            grids of samples while it trains
├── best/               the model that was best when the run was measured on its way, where it was
├── evaluation.png      the numbers that were measured on the way, where they were
├── loss.png            the loss, with the Bayes floor where it is known
├── checkpoints/        to go on from
├── snapshots/          averages to make one of any length of, where they are asked for
└── model/              the averaged model, replaced whole at every checkpoint
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..blueprint import Blueprint
from ..codecs.identity import IdentityCodec
from ..data.base import MOST_CHECKED, MOST_IN_PART, AnyDataset, Progress
from ..denoisers.base import Denoiser
from ..errors import BadOption, DataError, MissingExtra, ModelFolderError, RunFolderError, UnnoiseError
from ..files import write_atomically
from ..model import Model
from ..model_folder import read_folder
from ..objectives.mse import preconditioned
from ..options import plain
from ..precision import dtype_of, keep_freed_memory
from ..training.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    newest_whole,
    remove_old,
    remove_partials,
    save_checkpoint,
)  # fmt: skip
from ..training.execution import begin_state
from ..training.loop import CheckpointDue, Diverged, Event, Finished, SamplesDue, Stepped, Trainee, Validated
from ..training.loop import train as train_loop
from ..training.parallel import ALONE, Processes
from ..training.shares import save_shares
from ..training.state import TrainState
from ..training.threads import step_operations, threads_for
from .averaging import SNAPSHOTS, forget_later, keep_snapshot, size_told
from .finetune import Start
from .judging.while_training import Evaluated, Watcher, check_plan
from .lock import locked
from .logbook import Logbook, Work
from .recipe import Recipe, load_recipe, read_values
from .tracking.base import TrackedRun

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
    """

    recipe: Recipe
    blueprint: Blueprint
    train: AnyDataset
    held_out: AnyDataset
    skipped: tuple[str, ...]
    start: Start | None = None


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
    codec, sigma_data = recipe.codec, recipe.denoiser.sigma_data
    measured = train.part(MOST_READ) if codec is None or sigma_data == "auto" else None
    if codec is None:
        assert measured is not None
        codec = IdentityCodec.pixels() if data.spec.kind == "image" else IdentityCodec.standardizing(measured.x)
    if sigma_data == "auto":
        assert measured is not None
        sigma_data = round(float(codec.encode(measured.x[:MOST_MEASURED]).double().std()), 6)
    blueprint = Blueprint(
        spec,
        codec,
        recipe.process,
        recipe.denoiser.name,
        float(sigma_data),
        recipe.denoiser.learned_variance,
        recipe.network,
        recipe.denoiser.self_conditioning,
    )
    settled = replace(recipe, codec=codec, denoiser=replace(recipe.denoiser, sigma_data=float(sigma_data)))
    return Prepared(settled, blueprint, train, held_out, data.skipped, start)


class Run:
    """A recipe in its folder.

    Args:
        recipe: What to run.
        folder: Where; made if missing, resumed if it holds the same recipe.
        progress: Told while data is read.
        processes: That run it together, see `connected`; only the first one writes.

    Raises:
        RunFolderError: The folder holds another recipe, or something else.
        DataError: The data cannot be read or learned from.
        BadOption: A batch does not fit in memory, or cannot be shared by so many processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: str | Path,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.folder, self.processes = Path(folder), processes
        self.device = recipe.machine.torch_device(processes.local_rank)
        self._begun, self._progress = (self.folder / "recipe.yaml").is_file(), progress
        self._claim(recipe)
        prepared = prepare(recipe, progress)
        self.recipe, self.blueprint, self.train_data = prepared.recipe, prepared.blueprint, prepared.train
        self._held_out, self.start = prepared.held_out, prepared.start
        self.trainee, self.state = self._beginning()
        self._known = prepared.skipped
        self.notes = [*_told(prepared.skipped), *(self.start.notes if self.start is not None else ())]
        if size := size_told(recipe, sum(p.numel() for p in self.state.parameters)):
            self.notes.append(f"snapshots of averages will be {size}")
        self.scores: dict[str, Any] = {}
        self._fingerprint = self.train_data.fingerprint()
        self.watcher = self._watcher(prepared)
        check_plan(recipe.evaluation, self.train_data.spec)
        self._resume()
        if processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._begun:
                write_atomically(self.folder / "recipe.yaml", recipe.yaml().encode())
        if self.finished and processes.count == 1 and not self._model_stands():
            self.model().save(self.folder / "model")
            self.notes.append(f"the model was made again from the checkpoint of step {self.state.step}")

    def _watcher(self, prepared: Prepared) -> Watcher:
        """Measures the run on its way; without a plan it is asked nothing, and the least of the data will do."""
        most = MOST_IN_PART if self.recipe.evaluation.every else MOST_CHECKED
        parts = prepared.train.part(most), prepared.held_out.part(most)
        return Watcher(self.recipe.evaluation, *parts, self.recipe.training.batch_size, self.recipe.seed)

    def _beginning(self) -> tuple[Trainee, TrainState]:
        """What is trained, and its state before the first step."""
        recipe, machine = self.recipe, self.recipe.machine
        denoiser, network = self._untrained()
        state = begin_state(
            network,
            self.blueprint.input_shape,
            recipe.training,
            machine,
            self.device,
            self.processes,
            recipe.objective.companion(denoiser.schedule),
        )
        trainee = Trainee(
            denoiser, recipe.objective, self.blueprint.codec, self.train_data, self._held_out, recipe.seed,
            machine.micro_batch, machine.workers,
        )  # fmt: skip
        return trainee, state

    def _untrained(self) -> tuple[Denoiser, nn.Module]:
        """The denoiser, and its network, as they are before the first step."""
        denoiser = self.blueprint.build(self.recipe.seed)
        network = preconditioned(denoiser).network
        assert network is not None
        if self.start is not None:
            self.start.begin(network, self.blueprint, self.recipe.seed)
        return denoiser, network

    def late_notes(self) -> list[str]:
        """What could not be read since the run was made: of data in shards, images are opened as they are needed."""
        return _told([line for line in self.train_data.skipped if line not in self._known])

    def _model_stands(self) -> bool:
        """Whether the folder's model is that of this step: a run may have been killed after its last checkpoint."""
        try:
            return bool(read_folder(self.folder / "model")[0]["trained"]["steps"] == self.state.step)
        except (ModelFolderError, KeyError, TypeError):
            return False

    def _claim(self, recipe: Recipe) -> None:
        file = self.folder / "recipe.yaml"
        if file.is_file():
            try:
                begun = read_values(file)
            except BadOption as error:
                raise RunFolderError(f"the recipe of a run is damaged: {error}; use another --out") from None
            same_work = {**_with_defaults(begun), "machine": plain(recipe.machine), "tracking": plain(recipe.tracking)}
            changed = sorted(_differences(same_work, recipe.describe()))
            if changed and not checkpoints(self.folder / "checkpoints"):
                with locked(self.folder):  # nobody trains there, and no step of it was ever saved: nothing is lost
                    self._begun = False
            elif changed:
                raise RunFolderError(
                    f"{self.folder} holds a run of another recipe (it differs in {', '.join(changed[:6])}): "
                    "use another --out, or the options that it was begun with"
                )
        elif self.folder.exists() and (
            not self.folder.is_dir() or any(not entry.name.startswith(".") for entry in self.folder.iterdir())
        ):
            raise RunFolderError(f"{self.folder} exists and is not a run folder: use another --out")

    def _resume(self) -> None:
        found, damaged = newest_whole(self.folder / "checkpoints") if self.processes.first else (None, [])
        self.notes += [f"damaged checkpoint passed over: {line}" for line in damaged]
        if found is None and damaged:
            raise RunFolderError(
                f"no whole checkpoint is left in {self.folder} ({damaged[0]}), and beginning anew would replace its model: "
                "use another --out, or remove the damaged checkpoints"
            )
        if found is not None and found.facts["data"] != self._fingerprint:
            raise RunFolderError(f"the data has changed since the run in {self.folder} was begun: use another --out")
        if found is not None and self.start is not None and found.facts.get("start") != self.start.hash:
            where = f"{self.start.settings.model} is not the model that the run in {self.folder} started from"
            raise RunFolderError(f"{where}: put that one back, or use another --out")
        self._take(found)

    def _take(self, found: Checkpoint | None) -> None:
        """Brings all processes to a checkpoint, as the first one found it."""
        path = self.processes.tell(None if found is None else found.path)
        if path is None:
            return
        shared_out = self.state.sharded or found is None or found.tensors is None
        if self.processes.tell(shared_out) and found is None:
            found = load_checkpoint(path)  # type: ignore[arg-type]
        if found is not None:
            found.restore(self.state)
            self.scores = dict(found.facts.get("scores") or {})  # type: ignore[call-overload]
            self.watcher.restore(found.facts.get("watcher") or {})  # type: ignore[arg-type]
        self.state.agree()

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.state.step >= self.recipe.training.steps

    def model(self, average: str = "") -> Model:
        """The averaged model as it stands.

        Args:
            average: Which of the run's averages, by its name; training.model_average by default.
        """
        denoiser = self.blueprint.build(self.recipe.seed)
        network = preconditioned(denoiser).network
        assert network is not None
        weights, adapter = self.state.ema_weights(average), None
        if self.start is not None:
            weights, adapter = self.start.finished(weights, self.blueprint)
        network.load_state_dict(weights)
        images = self.state.step * self.recipe.training.batch_size
        trained = {
            "recipe": self.recipe.description,
            "steps": self.state.step,
            "samples_seen": images,
            "data": self._fingerprint,
            "data_size": len(self.train_data),
            "seed": self.recipe.seed,
            **(self.start.facts() if self.start is not None else {}),
            **self.scores,
        }
        path = str(self.folder)
        return Model(self.blueprint, denoiser, self.recipe.sampling, trained, path, adapter)

    def save(self) -> None:
        """Writes the checkpoint and the model; all processes call this.

        Raises:
            OSError: The disk is full, or may not be written to; what stood there before stays.
        """
        model = self.model()
        facts = {
            "data": self._fingerprint,
            **({"start": self.start.hash} if self.start is not None else {}),
            "scores": self.scores,
            "watcher": self.watcher.state,
            "model": {**self.blueprint.describe(), "sampling": plain(self.recipe.sampling), "trained": model.trained},
        }
        place = self.folder / "checkpoints"
        if self.state.sharded:
            save_shares(place, self.state, facts, self.processes)
        elif self.processes.first:
            save_checkpoint(place, self.state.tensors(), self.state.step, facts)
        if self.processes.first:
            remove_old(place, self.state.step)
            model.save(self.folder / "model")

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Event | Evaluated]:
        """Trains from where the run stands, writing as it goes; all processes iterate.

        Args:
            stop: Asked after every step; when true, the state is saved and the run ends.

        Yields:
            Every event of the loop, after it was written down.

        Raises:
            TrainingDiverged: The loss is no longer a number, and going back with half the learning rate did not help.
            DataError: The data cannot be read any more, or a worker that reads it ended; the state is saved.
            OSError: The disk is full, or may not be written to.
        """
        if self.finished:
            yield Finished(self.state.step, stopped=False)
            return
        with locked(self.folder) if self.processes.first else nullcontext():
            if self.processes.first:
                for place in ("", "checkpoints", SNAPSHOTS, "model"):
                    remove_partials(self.folder / place)
                forget_later(self.folder, self.state.step)
            yield from self._events(stop)

    def _events(self, stop: Callable[[], bool]) -> Iterator[Event | Evaluated]:
        operations = step_operations(self.state.network, self.blueprint.input_shape, self.recipe.training.batch_size)
        logbook = self._logbook(operations) if self.processes.first else None
        keep_freed_memory()
        begun_at = self.state.step
        try:
            self.watcher.prepare(self._progress)
            with threads_for(operations):
                for event in train_loop(self.trainee, self.state, stop):
                    if isinstance(event, Diverged):
                        self._roll_back(event, logbook)
                    self._note(event, logbook)
                    yield event
                    if isinstance(event, Stepped) and self.watcher.due(
                        event.step, event.step == self.recipe.training.steps
                    ):
                        yield from self._evaluate(event.step, logbook)
        except DataError:  # a shard is gone, or a worker that reads it died: what was learned until then stays
            if self.processes.count == 1 and self.state.step > begun_at and self.state.finite():
                self.save()
            raise
        finally:
            if logbook is not None:
                logbook.close()

    def _logbook(self, operations: float) -> Logbook:
        recipe = self.recipe
        dtype = dtype_of(self.state.network) or torch.float32
        work = Work(operations, self.processes.count, dtype, self.device)
        run = TrackedRun(self.folder, recipe.describe(), recipe.tracking, self.state.step)
        return Logbook(run, recipe.training, work)

    def _roll_back(self, event: Diverged, logbook: Logbook | None) -> None:
        """Goes back to the last checkpoint with half the learning rate, once; a second time the loop gives up."""
        if float(self.state.rate) < 1:
            return
        found, _ = newest_whole(self.folder / "checkpoints") if self.processes.first else (None, [])
        if self.processes.tell(found is None):
            # The weights of the beginning, put where the spoilt ones stand.
            denoiser, network = self._untrained()
            self.state.begin_again(network, self.recipe.objective.companion(denoiser.schedule))
        else:
            self._take(found)
        self.state.rate.fill_(0.5)
        if logbook is not None:
            logbook.went_back(self.state.step, event)

    def _evaluate(self, step: int, logbook: Logbook | None) -> Iterator[Evaluated]:
        model = self.model()
        if logbook is None:
            return
        found = self.watcher.measure(model, step)
        logbook.write(found.line())
        if found.best:
            model.trained["evaluation"] = {name: float(each.value) for name, each in found.estimates.items()}
            model.save(self.folder / "best")
        yield found

    def _note(self, event: Event, logbook: Logbook | None) -> None:
        if isinstance(event, Validated):
            self.watcher.saw(event.loss.loss, None if event.floor is None else event.floor.loss)
            self.scores = {
                "validation_loss": event.loss.loss, **({"bayes_floor": event.floor.loss} if event.floor else {})
            }  # fmt: skip
        if isinstance(event, Stepped):  # before a checkpoint of this step, from which a run would not come back to it
            keep_snapshot(self.state, self.folder)
        if isinstance(event, CheckpointDue):
            if logbook is not None:
                logbook.flush()
            self.save()
        elif isinstance(event, SamplesDue):
            self._draw_samples(event.step, logbook)
        elif logbook is not None:
            logbook.note(event)
            if isinstance(event, Finished):
                self._draw_loss()

    def _draw_samples(self, step: int, logbook: Logbook | None) -> None:
        from .gallery import draw_run_samples

        model, path = self.model(), self.folder / "samples" / f"{step:09d}.png"
        if logbook is not None:
            draw_run_samples(model, path)
            if path.is_file():
                logbook.picture("samples", path, step)

    def _draw_loss(self) -> None:
        from .gallery import run_loss_picture, run_numbers_picture

        with suppress(MissingExtra):
            run_loss_picture(self.folder).save(self.folder / "loss.png")
            numbers = run_numbers_picture(self.folder, self.recipe.training.batch_size)
            if numbers is not None:
                numbers.save(self.folder / "evaluation.png")


def _told(skipped: Sequence[str], most: int = 10) -> list[str]:
    more = [f"and {len(skipped) - most} more were skipped"] if len(skipped) > most else []
    return [f"skipped {line}" for line in skipped[:most]] + more


def _with_defaults(begun: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of a run, also with the options that came after it was begun: their defaults are what it did."""
    try:
        return load_recipe(begun).describe()
    except UnnoiseError:  # an option that is no more: it is named as a difference
        return begun


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = set(old) | set(new)
        return [
            d for key in keys for d in _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        ]
    same = (
        json.dumps(old) == json.dumps(new)
        if not isinstance(old, (dict, list)) or not isinstance(new, (dict, list))
        else old == new
    )
    return [] if same else [where]
