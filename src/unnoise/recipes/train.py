"""Training in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model import Model
from ..training.parallel import connected, told_by_torchrun
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

    Under torchrun all processes call it, and train together.

    Args:
        recipe: A shipped recipe's name, a YAML file, plain values, or a recipe.
        out: The run folder.
        progress: Whether to show how it goes on stderr. For more, iterate `Run(recipe, out).events()`.
        overrides: Options by double-underscored path, such as training__lr=1e-4.

    Raises:
        UnnoiseError: Something in the recipe, the data or the folder must be mended first.
    """
    checked = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, **overrides)
    with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
        run = Run(checked, out, processes=processes)
        if progress and processes.first:
            from .watch import watch

            watch(run)
        else:
            for _ in run.events():
                pass
        return run.model()
