"""Whether a run may have a folder: a new one, or one that holds the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import BadOption, RunFolderError, UnnoiseError
from ..options import plain
from ..training.checkpoint import checkpoints
from .any_recipe import AnyRecipe
from .lock import locked
from .recipe import Recipe, load_any_recipe, read_values


def claim(folder: Path, recipe: AnyRecipe, first: bool = True) -> bool:
    """Looks whether a recipe may run in a folder; all processes of a run call this.

    Args:
        folder: It need not exist.
        recipe: What is to run.
        first: Whether this is the process that writes, which alone asks whether another run is writing.

    Returns:
        Whether this very recipe was begun there.

    Raises:
        RunFolderError: It holds another recipe with steps that were saved, another run, or something else.
    """
    file = folder / "recipe.yaml"
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or any(not each.name.startswith(".") for each in folder.iterdir())):
            raise RunFolderError(f"{folder} exists and is not a run folder: use another --out")
        return False
    try:
        begun = read_values(file)
    except BadOption as error:
        raise RunFolderError(f"the recipe of a run is damaged: {error}; use another --out") from None
    same_work = {**_with_defaults(begun), "machine": plain(recipe.machine), "tracking": plain(recipe.tracking)}
    changed = sorted(_differences(same_work, recipe.describe()))
    if changed and not checkpoints(folder / "checkpoints"):
        with (
            locked(folder) if first else nullcontext()
        ):  # nobody trains there, and no step was ever saved: nothing is lost
            return False
    if changed:
        more = ""
        if changed == ["training.steps"] and isinstance(recipe, Recipe):  # others begin with no model
            more = f"; to train what it has learned for longer, begin with it: --from {folder} and another --out"
        raise RunFolderError(
            f"{folder} holds a run of another recipe (it differs in {', '.join(changed[:6])}): "
            f"use another --out, or the options that it was begun with{more}"
        )
    return True


def _with_defaults(begun: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of a run, also with the options that came after it was begun: their defaults are what it did."""
    try:
        return load_any_recipe(begun).describe()
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
