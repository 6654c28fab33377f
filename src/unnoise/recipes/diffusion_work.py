"""A run that makes a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..codecs.autoencoder import AutoencoderCodec
from ..data.base import MOST_CHECKED, MOST_IN_PART
from ..model import Model
from ..objectives.mse import preconditioned
from ..training.captions import lines
from ..training.denoising import DenoiserTrainee
from .averaging import size_told
from .judging.while_training import Watcher, check_plan
from .marks import Mark, encoder_marks
from .prepare import Prepared
from .recipe import Recipe
from .work import Made, Work


class DiffusionWork(Work):
    """A diffusion model in the making.

    Args:
        prepared: Its data, and what it is made of.
    """

    recipe: Recipe

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.recipe, self.blueprint = prepared, prepared.recipe, prepared.blueprint
        self.train, self.held_out, self.skipped = prepared.train, prepared.held_out, prepared.skipped
        self.start = prepared.start
        self.marks = self._marks()

    def _marks(self) -> list[Mark]:
        found, codec = [], self.blueprint.codec
        if self.start is not None:
            where = f"{self.start.settings.model} is not the model that the run in {{folder}} started from"
            found.append(Mark("start", self.start.hash, f"{where}: put that one back, or use another --out"))
        if isinstance(codec, AutoencoderCodec):
            where = "codec.path holds another autoencoder than the one that the run in {folder} began with"
            found.append(Mark("codec", codec.hash, f"{where}: put that one back, or use another --out"))
        return [*found, *encoder_marks(self.blueprint.text)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See `Work.input_shape`."""
        return self.blueprint.input_shape

    def seen(self, x: Tensor) -> Tensor:
        """See `Work.seen`."""
        return self.blueprint.codec.encode(x)

    def trainee(self) -> DenoiserTrainee:
        """See `Work.trainee`."""
        recipe, latents = self.recipe, self.prepared.latents
        learned = (self.blueprint.codec, self.train, self.held_out)
        if latents is not None:
            learned = (latents.codec, latents.train, latents.held_out)
        trainee = DenoiserTrainee(
            self.blueprint.build(recipe.seed), recipe.objective, *learned, recipe.seed, recipe.machine.micro_batch,
            recipe.machine.workers, self.prepared.captions,
        )  # fmt: skip
        if self.start is not None:
            self.start.begin(trainee.network, self.blueprint, recipe.seed)
        return trainee

    @property
    def notes(self) -> list[str]:
        """See `Work.notes`; those of the model that it starts from come once that has begun."""
        layout = [told] if (told := self.train.spec.channels_last) else []
        return [*layout, *self.prepared.notes, *(self.start.notes if self.start is not None else ())]

    def size_notes(self, parameters: int) -> list[str]:
        """See `Work.size_notes`."""
        size = size_told(self.recipe, parameters)
        return [f"snapshots of averages will be {size}"] if size else []

    def made(self, weights: Mapping[str, Tensor], trained: Mapping[str, Any], path: str) -> Model:
        """See `Work.made`."""
        denoiser, adapter = self.blueprint.build(self.recipe.seed), None
        network = preconditioned(denoiser).network
        assert network is not None
        if self.start is not None:
            weights, adapter = self.start.finished(weights, self.blueprint)
        if self.blueprint.text is not None:
            weights = {**weights, **self.blueprint.text.untouched()}
        network.load_state_dict(dict(weights))
        return Model(self.blueprint, denoiser, self.recipe.sampling, dict(trained), path, adapter)

    def facts(self) -> dict[str, Any]:
        """See `Work.facts`."""
        return self.start.facts() if self.start is not None else {}

    def watcher(self) -> Watcher:
        """See `Work.watcher`; without a plan it is asked nothing, and the least of the data will do."""
        plan = self.recipe.evaluation
        most = MOST_IN_PART if plan.every else MOST_CHECKED
        parts = self.train.part(most), self.held_out.part(most)
        watcher = Watcher(plan, *parts, self.recipe.training.batch_size, self.recipe.seed)
        check_plan(plan, self.train.spec)
        return watcher

    def draw(self, made: Made, path: Path) -> None:
        """See `Work.draw`: a grid of samples."""
        from .gallery import draw_run_samples

        assert isinstance(made, Model)
        draw_run_samples(made, path, self._prompts())

    def _prompts(self) -> list[str]:
        """Some captions of data that was held out, where words are learned; of all where none was."""
        if self.prepared.captions is None:
            return []
        data = (self.held_out if len(self.held_out) else self.train).part(MOST_CHECKED)
        texts = data.texts or ()
        return [lines(texts[i * len(texts) // 8])[0] for i in range(min(8, len(texts)))]

    def summary(self) -> list[tuple[str, str]]:
        """See `Work.summary`."""
        trainee = self.trainee()
        parameters = sum(p.numel() for p in trainee.network.parameters())
        recipe, start = self.recipe, self.start
        told = [("words", line) for line in self.prepared.notes]
        told += [("start", line.removeprefix("start: ")) for line in (start.notes if start is not None else ())]
        predicting = f"{recipe.network.name}, {parameters:,} parameters, predicting {recipe.denoiser.name}"
        size = size_told(recipe, parameters)
        return [*told, ("network", predicting), *([("snapshots", size)] if size else [])]

    def goodbye(self, folder: Path) -> str:
        """See `Work.goodbye`."""
        name = (
            "samples.npz" if self.blueprint.spec.kind == "array" else "samples.png"
        )  # of the former there is no picture
        return f"the model stands in {folder / 'model'}; to sample: unnoise sample {folder} -o {name}"
