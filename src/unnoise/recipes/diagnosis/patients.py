"""A recipe with its data, to be examined. Each part is made when it is asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ...data.base import AnyDataset, Dataset, Progress
from ...data.inspect import MOST_LOOKED_AT, DataReport, inspect_data
from ...errors import BadOption, DataError, UnnoiseError
from ...training.trainee import Trainee
from ..any_recipe import AnyRecipe
from ..autoencoder import AutoencoderRecipe
from ..diffusion_work import DiffusionWork
from ..noising import stand_in
from ..recipe import Recipe
from ..work import Work
from ..works import work_of
from .trial import Trial, overfit, tried

_MOST_ENCODED = _MOST_COMPARED = 2000


class RecipePatient:
    """A recipe of any kind, and its data.

    Args:
        recipe: As it was asked for.
        seconds: How long a trial of one batch may take; 0 for none.
        progress: Told while data is read.

    Raises:
        DataError: There is no data that can be read.
    """

    recipe: AnyRecipe
    work: Work | None
    """What it asks for; None where nothing can be learned from its data."""

    def __init__(self, recipe: AnyRecipe, seconds: float = 0.0, progress: Progress | None = None) -> None:
        self.recipe, self.seconds, self.work = recipe, seconds, None
        self._unfit: DataError | None = None
        held_out: AnyDataset | None = None
        try:
            self.work = work_of(_without_features(recipe), progress)
            self.recipe, data, held_out = self.work.recipe, self.work.train, self.work.held_out
        except DataError as error:  # of data that is there, but nothing can be learned from
            self._unfit, data = error, recipe.data.load(progress)
        self.count, self.in_memory = len(data), isinstance(data, Dataset)
        self.data: Dataset = data.part(MOST_LOOKED_AT)
        self.numbers = data.spread(MOST_LOOKED_AT)
        """Which samples of the whole data `data` holds, shape (n,)."""
        self.held_out: Dataset | None = (
            held_out.part(MOST_LOOKED_AT) if held_out is not None and len(held_out) else None
        )

    @cached_property
    def report(self) -> DataReport:
        """What the data holds."""
        return inspect_data(self.data)

    @cached_property
    def encoded(self) -> Tensor | None:
        """Data from all over as the codec makes it, shape (n, ...), float64; None where it is not fit for it."""
        if self.work is None:
            return None
        some = torch.linspace(0, len(self.data) - 1, min(len(self.data), _MOST_ENCODED)).long()
        found = self.work.seen(self.data.x[some]).double()
        return found if bool(torch.isfinite(found).all()) else None

    @property
    def height(self) -> float:
        """The root mean square of the encoded data: what noise must drown; 1 where it is not known."""
        return 1.0 if self.encoded is None else float(self.encoded.square().mean().sqrt())

    def beginning(self) -> Trainee:
        """What is trained, as training begins with it, made anew.

        Raises:
            UnnoiseError: Training would refuse to begin.
        """
        if self.work is None:
            raise self._unfit or DataError("there is no data")
        return self.work.trainee()

    @cached_property
    def network(self) -> nn.Module | None:
        """What is trained, as training begins with it; None where it would refuse to."""
        try:
            return self.beginning().network
        except UnnoiseError:
            return None

    @property
    def device(self) -> torch.device | None:
        """Where it would be trained; None where there is no such device here."""
        try:
            return self.recipe.machine.torch_device()
        except BadOption:
            return None

    @cached_property
    def refusal(self) -> UnnoiseError | None:
        """What training would say instead of beginning; None where it would begin."""
        try:
            device = self.recipe.machine.torch_device()
            self.beginning()
            assert self.work is not None
            self.work.watcher()
            learning = tried(self.work, self.recipe.training)
            learning.trainee.examples(learning.state).until(1).step(0, device)
        except UnnoiseError as error:
            return error
        return None

    @cached_property
    def trial(self) -> Trial | None:
        """How one batch was learned; None where nothing was to be tried, or could be."""
        if not self.seconds or self.work is None or self.network is None:
            return None
        try:
            return overfit(self.work, self.seconds)
        except UnnoiseError:  # a batch that does not fit in memory, for instance: another check says so
            return None


class DiffusionPatient(RecipePatient):
    """A recipe of a diffusion model, and its data; see `RecipePatient`."""

    recipe: Recipe
    work: DiffusionWork | None

    def __init__(self, recipe: Recipe, seconds: float = 0.0, progress: Progress | None = None) -> None:
        super().__init__(recipe, seconds, progress)
        if self.work is None:  # else it is settled by the data
            self.recipe = replace(recipe, process=stand_in(recipe.process))

    @cached_property
    def nearest(self) -> tuple[Tensor, float]:
        """The numbers of the nearest other samples of the first some thousand, and how near: as a share of a usual distance."""
        x = self.data.x[:_MOST_COMPARED].double().flatten(1)
        distances = torch.cdist(x, x)
        usual = float(distances.median())
        near = distances.fill_diagonal_(float("inf")).min(1)
        return near.indices, float(near.values.median()) / usual if usual else 1.0


def patient_of(recipe: AnyRecipe, seconds: float = 0.0, progress: Progress | None = None) -> RecipePatient:
    """The patient that a recipe is; see `RecipePatient`."""
    if isinstance(recipe, Recipe):
        return DiffusionPatient(recipe, seconds, progress)
    return RecipePatient(recipe, seconds, progress)


def _without_features(recipe: AnyRecipe) -> AnyRecipe:
    """The same without a term whose features training would learn first, for minutes."""
    if not isinstance(recipe, AutoencoderRecipe):
        return recipe
    return replace(recipe, loss=replace(recipe.loss, perceptual=0.0))
