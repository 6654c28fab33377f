"""Training in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model import Model
from .recipe import Recipe, load_recipe
from .run import Run


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path = "runs/model",
    *,
    progress: bool = True,
    **overrides: Any,
) -> Model:
    """Trains a recipe, or goes on with the run that stands in `out`, and returns the model.

    Args:
        recipe: A shipped recipe's name, a YAML file, plain values, or a recipe.
        out: The run folder.
        progress: Whether to show how it goes on stderr. For more, iterate `Run(recipe, out).events()`.
        overrides: Options by double-underscored path, such as training__lr=1e-4.

    Raises:
        UnnoiseError: Something in the recipe, the data or the folder must be mended first.
    """
    checked = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, **overrides)
    run = Run(checked, out)
    if progress:
        from .watch import watch

        watch(run)
    else:
        for _ in run.events():
            pass
    return run.model()
