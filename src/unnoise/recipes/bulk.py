"""Many samples into a folder, one file each, here or by many workers; the same call goes on where one was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_atomically
from ..model import Model
from ..placement import precision_of
from ..precision import Precision
from ..replaying import KEPT, SOMETIMES
from ..request import whole_number
from ..samples import PER_SAMPLE, file_of_one, read_recipe, recipe_of_one
from .places.base import Job, Place, Progress, places


@dataclass(frozen=True)
class Filled:
    """What became of a folder of samples.

    Args:
        folder: Where they stand.
        made: How many were made now.
        found: How many stood there already.
        whole: Whether all are there.
    """

    folder: Path
    made: int
    found: int
    whole: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleFiles(Job):
    """Samples as the files that they will be: each part a batch.

    Args:
        model: What makes them.
        recipe: Of all of them together, with `batch_size`.
        precision: What it computes in.
    """

    model: Model
    recipe: Mapping[str, Any]
    precision: Precision

    def on(self, device: str) -> SampleFiles:
        """See `Job.on`."""
        return replace(self, model=self.model.on(device, self.precision))

    def __call__(self, part: range, progress: Progress | None = None) -> list[tuple[str, bytes]]:
        """The names of the files, and their bytes; see `Job`."""
        asked = {key: self.recipe[key] for key in (*KEPT, "batch_size")}
        asked |= {key: self.recipe.get(key) for key in SOMETIMES}
        recipe = recipe_of_one(self.recipe, part[0])
        told = {key: recipe[key] for key in PER_SAMPLE if key in recipe}
        return list(self.model.sample(len(part), **told, first=part[0], progress=progress, **asked).files())

    def parts(self) -> list[range]:
        """The batches."""
        first, n, size = (self.recipe[key] for key in ("first", "n", "batch_size"))
        return [range(low, min(low + size, first + n)) for low in range(first, first + n, size)]

    def stands_in(self, folder: Path, part: range) -> bool:
        """Whether a folder holds the files of a part, each made by the recipe that it would be made by now."""
        return all(
            _found(folder / file_of_one(self.model.spec, k)) == _anywhere(recipe_of_one(self.recipe, k)) for k in part
        )


def _found(file: Path) -> dict[str, Any] | None:
    try:
        return _anywhere(read_recipe(file))
    except DataError:
        return None


def _anywhere(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the place where the model stood."""
    return {**recipe, "model": {key: value for key, value in recipe["model"].items() if key != "path"}}


def sample_into(
    folder: str | Path,
    model: Model,
    n: int,
    *,
    label: str | int | Sequence[str | int | None] | None = None,
    first: int = 0,
    batch_size: int | None = None,
    place: str | Mapping[str, Any] | Place = "here",
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    **asked: Any,
) -> Filled:
    """Makes samples into a folder, one file each, named by their numbers; what stands there by the same recipe is not made again.

    The files are the same wherever they are made: a part is a batch, cut at the same numbers in every place.

    Args:
        folder: Made if it is not there; files of the same names by another recipe are replaced.
        model: What makes them, on the device and in the precision that it is used in here.
        n: How many.
        label: A class by name or number: one for all, or one for each.
        first: Index of the first sample.
        batch_size: Samples at a time; chosen by their size by default.
        place: "here", "ray", or {name: ray, workers: 8}.
        progress: Told how many samples are there, and how many there will be.
        stop: Asked between parts; when true, what is done stays.
        **asked: As for `Model.sample`: prompt, negative_prompt, image, strength, sampler, steps, grid, guidance, seed and so on.

    Returns:
        What became of it.

    Raises:
        BadOption: Something that this model or place cannot do is asked for.
        WorkersLost: Workers do not come up, or die over and over; what is done stays.
        OSError: The disk is full, or may not be written to; what is done stays.
    """
    where, folder = places.build(place, "on"), Path(folder)
    recipe = model.settle(n, label=label, first=first, **asked)
    notes = model.asked(recipe).notes  # so that a wrong label is told before anything is done
    n = recipe["n"]
    size = model.batch_size(n) if batch_size is None else whole_number("batch_size", batch_size, 1)
    job = SampleFiles(model, {**recipe, "batch_size": size, "frames": False}, precision_of(model.denoiser))
    todo = [part for part in job.parts() if not job.stands_in(folder, part)]
    found = n - sum(map(len, todo))
    made = 0

    def keep(part: range, files: list[tuple[str, bytes]]) -> None:
        nonlocal made
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            write_atomically(folder / name, content)
        made += len(part)

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(found + done, n)

    whole = where.run(job, todo, keep, tell, stop)
    return Filled(folder, made, found, whole, tuple(notes))
