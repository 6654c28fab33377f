"""Runs a recipe in a run folder: resumes what was begun, writes metrics, pictures, checkpoints and the model.

runs/digits/
├── recipe.yaml         the recipe, with every default written out
├── compiled.json       whether a compiled network was faster, where that was tried
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

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from ..blueprint import Blueprint
from ..data.base import Progress
from ..errors import DataError, MissingExtra, ModelFolderError, RunFolderError
from ..files import write_atomically
from ..model import Model
from ..model_folder import read_whole
from ..precision import dtype_of, settle_in
from ..training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_whole,
    remove_old,
    remove_partials,
    save_checkpoint,
)  # fmt: skip
from ..training.compiling import CompileChoice, CompileTrial, Compiling
from ..training.execution import begin_state
from ..training.loop import CheckpointDue, Diverged, Event, Finished, SamplesDue, Stepped, Validated, Working
from ..training.loop import train as train_loop
from ..training.parallel import ALONE, Processes
from ..training.shares import save_shares
from ..training.state import TrainState
from ..training.threads import threads_for
from ..training.trainee import Trainee
from .any_recipe import AnyRecipe
from .averaging import SNAPSHOTS, forget_later, keep_snapshot
from .claim import claim
from .diffusion_work import DiffusionWork
from .judging.while_training import Evaluated, Watcher
from .lock import locked
from .logbook import Logbook, StepCost
from .metrics import told_of_explosion
from .prepare import Prepared as Prepared
from .prepare import prepare as prepare
from .tracking.base import TrackedRun
from .work import Made
from .works import work_of

RunEvent = Event | Evaluated | Compiling | CompileTrial


class Run:
    """A recipe in its folder.

    Args:
        recipe: What to run.
        folder: Where; made if missing, resumed if it holds the same recipe.
        progress: Told while data is read.
        processes: That run it together, see `connected`; only the first one writes.

    Raises:
        RunFolderError: The folder holds another recipe, or something else.
        DataError: The data cannot be read or learned from, or a process has other data than the first one.
        BadOption: A batch does not fit in memory, or cannot be shared by so many processes.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        folder: str | Path,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.folder, self.processes = Path(folder), processes
        self.device = recipe.machine.torch_device(processes.local_rank)
        self._begun, self._progress = claim(self.folder, recipe, processes.first), progress
        self.work = work_of(recipe, progress)
        self.recipe, self.train_data = self.work.recipe, self.work.train
        self._fingerprint = self.train_data.fingerprint()
        self._compare()
        self.trainee, self.state = self._beginning()
        self._known = self.work.skipped
        sizes = self.work.size_notes(sum(p.numel() for p in self.state.parameters))
        self.notes = [*_told(self.work.skipped), *self.work.notes, *sizes]
        self.scores: dict[str, Any] = {}
        self.watcher = self.work.watcher()
        self._resume()
        self._saved = self.state.step
        if processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._begun:
                write_atomically(self.folder / "recipe.yaml", recipe.yaml().encode())
        if self.finished and not processes.tell(self._model_stands()):
            if model := self._firsts_model():
                model.save(self.folder / "model")
            self.notes.append(f"the model was made again from the checkpoint of step {self.state.step}")

    @property
    def blueprint(self) -> Blueprint:
        """What the model is made of, of a run that makes a diffusion model."""
        assert isinstance(self.work, DiffusionWork)
        return self.work.blueprint

    def _compare(self) -> None:
        """Holds what each process has read against what the first one has; all raise where they are not the same."""
        own = [("other data", self._fingerprint), *((f"another {mark.name}", mark.value) for mark in self.work.marks)]
        said = self.processes.hear((platform.node(), own))
        for rank, (node, others) in enumerate(said):
            for (what, value), (_, firsts) in zip(others, said[0][1], strict=False):
                if value != firsts:
                    raise DataError(
                        f"process {rank} of {len(said)}, on {node}, has {what} than the first one: give all machines the same files"
                    )

    def _beginning(self) -> tuple[Trainee, TrainState]:
        """What is trained, and its state before the first step."""
        trainee = self.work.trainee()
        state = begin_state(
            trainee.network,
            self.work.input_shape,
            self.recipe.training,
            self.recipe.machine,
            self.device,
            self.processes,
            trainee.companion(),
            trainee.whole,
            trainee.recordable,
        )
        return trainee, state

    def late_notes(self) -> list[str]:
        """What came up since the run was made: images in shards that could not be read, a loss that ended far up."""
        unread = [line for line in self.train_data.skipped if line not in self._known]
        return [*_told(unread), *told_of_explosion(self.folder, self.recipe.training.lr)]

    def _model_stands(self) -> bool:
        """Whether the folder's model is that of this step: a run may have been killed after its last checkpoint."""
        try:
            return bool(read_whole(self.folder / "model")["trained"]["steps"] == self.state.step)
        except (ModelFolderError, KeyError, TypeError):
            return False

    def _resume(self) -> None:
        """Brings the run to its last checkpoint; what the first process finds wrong with it, all raise."""
        found, wrong = self._found() if self.processes.first else (None, None)
        if told := self.processes.tell(wrong):
            raise RunFolderError(str(told))
        self._take(found)

    def _found(self) -> tuple[Checkpoint | None, str | None]:
        """The newest whole checkpoint, and why the run cannot go on from it."""
        found, damaged = newest_whole(self.folder / "checkpoints")
        self.notes += [f"damaged checkpoint passed over: {line}" for line in damaged]
        if found is None and damaged:
            return None, (
                f"no whole checkpoint is left in {self.folder} ({damaged[0]}), and beginning anew would replace its model: "
                "use another --out, or remove the damaged checkpoints"
            )
        if found is not None and found.facts["data"] != self._fingerprint:
            return None, f"the data has changed since the run in {self.folder} was begun: use another --out"
        known = found.facts if found is not None else {}
        for mark in self.work.marks:
            if known.get(mark.name, mark.value) != mark.value:  # runs that were begun before a mark came have none
                return None, mark.changed.replace("{folder}", str(self.folder))
        return found, None

    def _take(self, found: Checkpoint | None) -> None:
        """Brings all processes to a checkpoint, as the first one found it."""
        path = self.processes.tell(None if found is None else found.path)
        if path is None:
            return
        shared_out = self.state.sharded or found is None or found.tensors is None
        if self.processes.tell(shared_out) and found is None:
            found = self._reached(Path(str(path)))
        if found is not None:
            found.restore(self.state)
            self.scores = dict(found.facts.get("scores") or {})  # type: ignore[call-overload]
            if self.watcher is not None:
                self.watcher.restore(found.facts.get("watcher") or {})  # type: ignore[arg-type]
        self.state.agree()

    def _reached(self, path: Path) -> Checkpoint:
        try:
            return load_checkpoint(path, every_byte=False)  # which the first one has looked at
        except ValueError as error:
            raise RunFolderError(
                f"process {self.processes.rank} cannot read the checkpoint that the first one found ({error}): "
                "weights that are shared out need a folder that all machines reach"
            ) from None

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.state.step >= self.recipe.training.steps

    def made(self, average: str = "") -> Made:
        """What the run makes, as it stands, with averaged weights.

        Args:
            average: Which of the run's averages, by its name; training.model_average by default.
        """
        images = self.state.step * self.recipe.training.batch_size
        trained = {
            "recipe": self.recipe.description,
            "steps": self.state.step,
            "samples_seen": images,
            "data": self._fingerprint,
            "data_size": len(self.train_data),
            "seed": self.recipe.seed,
            **self.work.facts(),
            **self.scores,
        }
        return self.work.made(self.state.ema_weights(average), trained, str(self.folder))

    def model(self, average: str = "") -> Model:
        """The averaged model as it stands, of a run that makes a diffusion model; see `made`."""
        model = self.made(average)
        assert isinstance(model, Model)
        return model

    def _firsts_model(self) -> Made | None:
        """What is made in the first process, and None in the others, which take part where it is shared out."""
        if self.processes.first:
            return self.made()
        if self.state.sharded:
            self.state.ema_weights(wanted=False)
        return None

    def save(self) -> None:
        """Writes the checkpoint and the model; all processes call this.

        Raises:
            OSError: The disk is full, or may not be written to; what stood there before stays.
        """
        model, place = self._firsts_model(), self.folder / "checkpoints"
        facts = {} if model is None else {
            "data": self._fingerprint,
            **{mark.name: mark.value for mark in self.work.marks},
            "scores": self.scores,
            **({"watcher": self.watcher.state} if self.watcher is not None else {}),
            "model": model.describe(),
        }  # fmt: skip
        if self.state.sharded:
            save_shares(place, self.state, facts, self.processes)
        elif model is not None:
            save_checkpoint(place, self.state.tensors(), self.state.step, facts)
        if model is not None:
            remove_old(place, self.state.step)
            model.save(self.folder / "model")
        self._saved = self.state.step

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[RunEvent]:
        """Trains from where the run stands, writing as it goes; all processes iterate.

        Args:
            stop: Asked after every step; when true, the state is saved and the run ends.

        Yields:
            Every event of the loop, after it was written down.

        Raises:
            TrainingDiverged: The loss, its gradient or a weight is no longer a number, and going back with half the learning rate
                did not help.
            DataError: The data cannot be read any more, or a worker that reads it ended; the state is saved. If a
                process cannot read its part, all raise it.
            OutOfMemory: The memory does not suffice for as many samples at once as there are; the last checkpoint stays.
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

    def _events(self, stop: Callable[[], bool]) -> Iterator[RunEvent]:
        logbook = self._logbook() if self.processes.first else None
        settle_in()
        try:
            if self.processes.first and self.watcher is not None:  # who alone measures
                self.watcher.prepare(self._progress)
            with threads_for(self.state.operations):
                yield from CompileChoice(self.folder, self.recipe.machine, self.device).settle(self.trainee, self.state)
                for event in train_loop(self.trainee, self.state, stop, self._measured):
                    if isinstance(event, Diverged):
                        self._roll_back(event, logbook)
                    self._note(event, logbook)
                    yield event
                    if isinstance(event, Stepped) and self.watcher is not None and self._measured(event.step):
                        yield from self._evaluate(self.watcher, event.step, logbook)
        except DataError:
            # The loop saves before it raises one, in all processes; when it measures, the first one is alone.
            alone = self.processes.first and not self.state.sharded
            if alone and self.state.step > self._saved and self.state.finite(alone=True):
                self.save()
            raise
        finally:
            if logbook is not None:
                logbook.close()

    def _measured(self, step: int) -> bool:
        """Whether the model is measured after a step."""
        return self.watcher is not None and self.watcher.due(step, step == self.recipe.training.steps)

    def _logbook(self) -> Logbook:
        recipe = self.recipe
        dtype = dtype_of(self.state.network) or torch.float32
        cost = StepCost(self.state.operations, self.processes.count, dtype, self.device)
        run = TrackedRun(self.folder, recipe.describe(), recipe.tracking, self.state.step)
        return Logbook(run, recipe.training, cost)

    def _roll_back(self, event: Diverged, logbook: Logbook | None) -> None:
        """Goes back to the last checkpoint with half the learning rate, once; a second time the loop gives up."""
        if float(self.state.rate) < 1:
            return
        found, _ = newest_whole(self.folder / "checkpoints") if self.processes.first else (None, [])
        if self.processes.tell(found is None):
            # The weights of the beginning, put where the spoilt ones stand.
            fresh = self.work.trainee()
            self.state.begin_again(fresh.network, fresh.companion())
            if self.watcher is not None:
                self.watcher.restore(Watcher.NOTHING)
        else:
            self._take(found)
        self.state.rate.fill_(0.5)
        self._saved = self.state.step
        if logbook is not None:
            logbook.went_back(self.state.step, event)

    def _evaluate(self, watcher: Watcher, step: int, logbook: Logbook | None) -> Iterator[Working | Evaluated]:
        model = self._firsts_model()
        if model is None or logbook is None:
            return
        assert isinstance(model, Model)
        yield Working(step, "measuring")
        found = watcher.measure(model, step)
        logbook.write(found.line())
        if found.best:
            model.trained["evaluation"] = {name: float(each.value) for name, each in found.estimates.items()}
            model.save(self.folder / "best")
        yield found

    def _note(self, event: Event, logbook: Logbook | None) -> None:
        if isinstance(event, Validated):
            floor = {} if event.floor is None else {"bayes_floor": event.floor.loss}
            self.scores = {"validation_loss": event.loss.loss, **floor, **event.loss.more}
            if self.watcher is not None:
                self.watcher.saw(event.loss.loss, floor.get("bayes_floor"))
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
                from .gallery import save_run_pictures

                with suppress(MissingExtra):
                    save_run_pictures(self.folder, self.recipe.training.batch_size)

    def _draw_samples(self, step: int, logbook: Logbook | None) -> None:
        model, path = self._firsts_model(), self.folder / "samples" / f"{step:09d}.png"
        if model is not None and logbook is not None:
            self.work.draw(model, path)
            if path.is_file():
                logbook.picture("samples", path, step)


def _told(skipped: Sequence[str], most: int = 10) -> list[str]:
    more = [f"and {len(skipped) - most} more were skipped"] if len(skipped) > most else []
    return [f"skipped {line}" for line in skipped[:most]] + more
