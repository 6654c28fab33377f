"""Training in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from ..model import Model
from ..training.parallel import connected, told_by_torchrun
from .any_recipe import AnyRecipe
from .autoencoder import AutoencoderRecipe
from .autoencoder_work import TrainedAutoencoder
from .recipe import Recipe, load_any_recipe
from .run import Run


@overload
def train(
    recipe: AutoencoderRecipe, out: str | Path = "runs/model", *, progress: bool = True, **overrides: Any
) -> TrainedAutoencoder: ...


@overload
def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | Path = "runs/model",
    *,
    progress: bool = True,
    **overrides: Any,
) -> Model: ...


def train(
    recipe: str | Path | Mapping[str, Any] | AnyRecipe,
    out: str | Path = "runs/model",
    *,
    progress: bool = True,
    **overrides: Any,
) -> Any:
    """Trains a recipe, or goes on with the run that stands in `out`, and returns the model, or the autoencoder.

    Under torchrun all processes call it, and train together.

    Args:
        recipe: A shipped recipe's name, a YAML file, plain values, or a recipe.
        out: The run folder.
        progress: Whether to show how it goes on stderr. For more, iterate `Run(recipe, out).events()`.
        overrides: Options by double-underscored path, such as training__lr=1e-4.

    Raises:
        UnnoiseError: Something in the recipe, the data or the folder must be mended first.
    """
    checked = recipe if isinstance(recipe, AnyRecipe) else load_any_recipe(recipe, **overrides)
    with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
        run = Run(checked, out, processes=processes)
        if progress and processes.first:
            from .watch import watch

            watch(run)
        else:
            for _ in run.events():
                pass
        return run.made()
