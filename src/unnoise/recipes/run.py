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
└── model/              the averaged model, replaced whole at every checkpoint
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..blueprint import Blueprint
from ..codecs.identity import IdentityCodec
from ..data.base import MOST_CHECKED, MOST_IN_PART, AnyDataset, Progress
from ..errors import BadOption, MissingExtra, ModelFolderError, RunFolderError, UnnoiseError
from ..files import write_atomically
from ..model import Model
from ..model_folder import read_folder
from ..objectives.mse import preconditioned
from ..options import plain
from ..training.checkpoint import checkpoints, newest_whole, remove_partials, save_checkpoint
from ..training.loop import CheckpointDue, Event, Finished, SamplesDue, Stepped, Trainee, Validated
from ..training.loop import train as train_loop
from ..training.state import TrainState
from ..training.threads import step_operations, threads_for
from .finetune import Start
from .judging.while_training import Evaluated, Watcher, check_plan
from .lock import locked
from .metrics import MetricsFile
from .recipe import Recipe, load_recipe, read_values

MOST_MEASURED = 10_000
"""Samples whose spread is measured where a recipe leaves that open."""


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
    measured = train.part(MOST_MEASURED) if codec is None or sigma_data == "auto" else None
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

    Raises:
        RunFolderError: The folder holds another recipe, or something else.
        DataError: The data cannot be read or learned from.
    """

    def __init__(self, recipe: Recipe, folder: str | Path, progress: Progress | None = None) -> None:
        self.folder = Path(folder)
        self._begun, self._progress = (self.folder / "recipe.yaml").is_file(), progress
        self._claim(recipe)
        prepared = prepare(recipe, progress)
        self.recipe, self.blueprint, self.train_data = prepared.recipe, prepared.blueprint, prepared.train
        denoiser = self.blueprint.build(self.recipe.seed)
        self.trainee = Trainee(
            denoiser, recipe.objective, self.blueprint.codec, self.train_data, prepared.held_out, recipe.seed
        )
        network = preconditioned(denoiser).network
        assert network is not None
        self.start = prepared.start
        if self.start is not None:
            self.start.begin(network, self.blueprint, self.recipe.seed)
        self.state = TrainState(network, recipe.training)
        self.notes = [*_told(prepared.skipped), *(self.start.notes if self.start is not None else ())]
        self.scores: dict[str, Any] = {}
        self._fingerprint = self.train_data.fingerprint()
        self.watcher = self._watcher(prepared)
        check_plan(recipe.evaluation, self.train_data.spec)
        self._resume()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._begun:
            write_atomically(self.folder / "recipe.yaml", recipe.yaml().encode())
        if self.finished and not self._model_stands():
            self.model().save(self.folder / "model")
            self.notes.append(f"the model was made again from the checkpoint of step {self.state.step}")

    def _watcher(self, prepared: Prepared) -> Watcher:
        """Measures the run on its way; without a plan it is asked nothing, and the least of the data will do."""
        most = MOST_IN_PART if self.recipe.evaluation.every else MOST_CHECKED
        parts = prepared.train.part(most), prepared.held_out.part(most)
        return Watcher(self.recipe.evaluation, *parts, self.recipe.training.batch_size, self.recipe.seed)

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
            same_work = {**_with_defaults(begun), "machine": plain(recipe.machine)}
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
        found, damaged = newest_whole(self.folder / "checkpoints")
        self.notes += [f"damaged checkpoint passed over: {line}" for line in damaged]
        if found is None:
            if damaged:
                raise RunFolderError(
                    f"no whole checkpoint is left in {self.folder} ({damaged[0]}), and beginning anew would replace its model: "
                    "use another --out, or remove the damaged checkpoints"
                )
            return
        tensors, step, facts = found
        if facts["data"] != self._fingerprint:
            raise RunFolderError(f"the data has changed since the run in {self.folder} was begun: use another --out")
        if self.start is not None and facts.get("start") != self.start.hash:
            where = f"{self.start.settings.model} is not the model that the run in {self.folder} started from"
            raise RunFolderError(f"{where}: put that one back, or use another --out")
        self.state.restore(tensors, step)
        self.scores = dict(facts.get("scores") or {})  # type: ignore[call-overload]
        self.watcher.restore(facts.get("watcher") or {})  # type: ignore[arg-type]

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        return self.state.step >= self.recipe.training.steps

    def model(self) -> Model:
        """The averaged model as it stands."""
        denoiser = self.blueprint.build(self.recipe.seed)
        network = preconditioned(denoiser).network
        assert network is not None
        weights, adapter = self.state.ema_weights(), None
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
        """Writes the checkpoint and the model.

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
        save_checkpoint(self.folder / "checkpoints", self.state.tensors(), self.state.step, facts)
        model.save(self.folder / "model")

    def events(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Event | Evaluated]:
        """Trains from where the run stands, writing as it goes.

        Args:
            stop: Asked after every step; when true, the state is saved and the run ends.

        Yields:
            Every event of the loop, after it was written down.

        Raises:
            TrainingDiverged: The loss is no longer a number.
            OSError: The disk is full, or may not be written to.
        """
        if self.finished:
            yield Finished(self.state.step, stopped=False)
            return
        with locked(self.folder):
            for place in ("", "checkpoints", "model"):
                remove_partials(self.folder / place)
            yield from self._events(stop)

    def _events(self, stop: Callable[[], bool]) -> Iterator[Event | Evaluated]:
        metrics = MetricsFile(self.folder, self.state.step)
        began, begun_at = time.perf_counter(), self.state.step
        operations = step_operations(self.state.network, self.blueprint.input_shape, self.recipe.training.batch_size)
        try:
            self.watcher.prepare(self._progress)
            with threads_for(operations):
                for event in train_loop(self.trainee, self.state, stop):
                    self._note(event, metrics, begun_at, began)
                    yield event
                    if isinstance(event, Stepped) and self.watcher.due(
                        event.step, event.step == self.recipe.training.steps
                    ):
                        yield self._evaluate(event.step, metrics)
        finally:
            metrics.close()

    def _evaluate(self, step: int, metrics: MetricsFile) -> Evaluated:
        model = self.model()
        found = self.watcher.measure(model, step)
        metrics.write(found.line())
        if found.best:
            model.trained["evaluation"] = {name: float(each.value) for name, each in found.estimates.items()}
            model.save(self.folder / "best")
        return found

    def _note(self, event: Event, metrics: MetricsFile, begun_at: int, began: float) -> None:
        settings = self.recipe.training
        match event:
            case Stepped(step=step, loss=loss, learning_rate=lr):
                if step % settings.log_every == 0 or step == settings.steps:
                    rate = (step - begun_at) * settings.batch_size / (time.perf_counter() - began)
                    metrics.write({"step": step, "loss": float(loss), "lr": lr, "samples_per_second": round(rate, 1)})
            case Validated(step=step, loss=strata, floor=floor):
                self.watcher.saw(strata.loss, None if floor is None else floor.loss)
                self.scores = {"validation_loss": strata.loss, **({"bayes_floor": floor.loss} if floor else {})}
                by_time = {
                    "t": list(strata.t),
                    "loss": list(strata.by_time),
                    "floor": list(floor.by_time) if floor else None,
                }
                metrics.write({"step": step, **self.scores, "by_time": by_time})
            case CheckpointDue():
                metrics.flush()
                self.save()
            case SamplesDue(step=step):
                self._draw_samples(step)
            case Finished():
                metrics.flush()
                self._draw_loss()

    def _draw_samples(self, step: int) -> None:
        from .gallery import draw_run_samples

        draw_run_samples(self.model(), self.folder / "samples" / f"{step:09d}.png")

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
