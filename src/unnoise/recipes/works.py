"""From a recipe of any kind to the work that it asks for."""

from __future__ import annotations

from ..data.base import Progress
from .any_recipe import AnyRecipe
from .autoencoder import AutoencoderRecipe
from .autoencoder_work import AutoencoderWork
from .clip import ClipRecipe
from .clip_work import ClipWork
from .diffusion_work import DiffusionWork
from .prepare import prepare
from .recipe import Recipe
from .work import Work


def work_of(recipe: AnyRecipe, progress: Progress | None = None) -> Work:
    """Loads the data of a recipe and settles what it leaves open.

    Args:
        recipe: Of any kind.
        progress: Told while data is read.

    Raises:
        DataError: The data cannot be read or learned from.
        IncompatibleParts: The parts cannot work together.
        ModelFolderError: A model or an autoencoder that it needs is not there.
    """
    if isinstance(recipe, AutoencoderRecipe):
        return AutoencoderWork(recipe, progress)
    if isinstance(recipe, ClipRecipe):
        return ClipWork(recipe, progress)
    assert isinstance(recipe, Recipe)
    return DiffusionWork(prepare(recipe, progress))
