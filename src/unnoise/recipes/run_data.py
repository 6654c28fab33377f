"""The data of a run, found again from the recipe that stands beside its model."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from ..data.base import MOST_IN_PART, AnyDataset, Dataset, DataSource, Progress, datasets
from ..data.open import source_of
from ..data.streaming.store import is_url
from ..model import Model
from ..shipped import folder_of
from .any_recipe import AnyRecipe
from .recipe import load_recipe, read_values, with_data


@dataclass(frozen=True)
class RunData:
    """What a run learned from.

    Args:
        train: What it was trained on; a part of it where that is not in memory.
        held_out: What it never saw; may be empty.
        changed: Whether it is no longer the data that the model was trained on.
        read: The former as training reads it, whole.
        notes: One line where only a part of the data is here.
    """

    train: Dataset
    held_out: Dataset
    changed: bool
    read: AnyDataset
    notes: tuple[str, ...] = ()


def in_memory(data: AnyDataset, most: int = MOST_IN_PART) -> tuple[Dataset, tuple[str, ...]]:
    """A data set that can be looked at as a whole, and a note where it is only a part of the data.

    Args:
        data: In memory, or in shards.
        most: Samples of the part.
    """
    part = data.part(most)
    if len(part) == len(data):
        return part, ()
    return part, (f"of the {len(data):,} samples of the data, which is read in shards, {len(part):,} are looked at",)


def recipe_beside(model: Model) -> Path | None:
    """The recipe of the run around a model, or None."""
    if model.path is None:
        return None
    folder = folder_of(model.path)
    places = (folder / "recipe.yaml", folder.resolve().parent / "recipe.yaml")
    return next((place for place in places if place.is_file()), None)


def run_data(model: Model, progress: Progress | None = None) -> RunData | None:
    """The data of the run around a model; None where the model stands in no run folder.

    Args:
        model: As it was loaded.
        progress: Told while data is read.

    Raises:
        DataError: It cannot be read any more.
    """
    recipe = recipe_beside(model)
    if recipe is None:
        return None
    return data_of(load_recipe(read_values(recipe)), model.trained.get("data"), progress, recipe.parent)


def data_of(recipe: AnyRecipe, known: object, progress: Progress | None = None, folder: Path | None = None) -> RunData:
    """The data of a run of any kind.

    Args:
        recipe: Of the run.
        known: The fingerprint of what was learned; None where nobody knows it.
        progress: Told while data is read.
        folder: Of the run: a relative path is looked for from the folders around it, too.

    Raises:
        DataError: It cannot be read any more.
    """
    source = recipe.data if folder is None else as_begun(recipe.data, folder)
    train, held_out = source.load(progress).split(recipe.training.validation_share, recipe.seed)
    changed = known not in (None, train.fingerprint())
    part, notes = in_memory(train)
    return RunData(part, held_out.part(), changed, train, notes)


def as_begun(source: DataSource, run: Path) -> DataSource:
    """A source whose relative paths lead to what they meant where the run was begun, which mostly lies around its folder.

    The recipe keeps them as they were given: so the same command goes on with a run, also where all of it was moved.

    Args:
        source: As the recipe says.
        run: The folder of the run.
    """
    found: dict[str, str] = {}
    for name in ("path", "maps"):
        given = getattr(source, name, "")
        if not given or is_url(given) or Path(given).expanduser().is_absolute() or _stands(given):
            continue
        places = (str(folder / given) for folder in run.resolve().parents)
        if place := next(filter(_stands, places), None):
            found[name] = place
    return datasets.build({**datasets.describe(source), **found}) if found else source


def _stands(path: str) -> bool:
    return Path(path).expanduser().exists() or (glob.has_magic(path) and bool(glob.glob(path, recursive=True)))


def source_like(path: str, model: Model | None, size: int = 0) -> DataSource:
    """The source of a path, or of a shipped data set, read with the options of the run around a model where they fit.

    Args:
        path: A folder of images, Parquet, NPY/NPZ or CSV, or a shipped data set's name.
        model: Whose run's options are taken; None takes none.
        size: Side that images are brought to; 0 leaves that to the run's options.

    Raises:
        DataError: Nothing that can be read stands there.
    """
    if path in datasets and not Path(path).exists():
        return datasets.build(path)  # type: ignore[no-any-return]
    recipe = None if model is None else recipe_beside(model)
    if recipe is None:
        return _sized({**datasets.describe(source_of(path))}, size)
    return _sized(dict(with_data(read_values(recipe), path)["data"]), size)


def _sized(spec: dict[str, object], size: int) -> DataSource:
    if size and "size" in datasets.schema(str(spec["name"])):
        spec["size"] = size
    return datasets.build(spec)  # type: ignore[no-any-return]
