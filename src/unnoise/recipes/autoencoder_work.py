"""A run that makes an autoencoder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.autoencoder import AutoencoderCodec
from ..codecs.identity import IdentityCodec
from ..data.base import Progress, Spec
from ..errors import BadOption, IncompatibleParts
from ..evaluation.perceptual import PerceptualDistance
from ..files import write_atomically
from ..model_folder import described_parts
from ..objectives.reconstruction import Distance
from ..training.reconstruction import AutoencoderTrainee
from .autoencoder import AutoencoderRecipe
from .codec_folder import codec_values, save_codec
from .work import Made, Work

MOST_WHITENED = 10_000
"""Samples whose latents' mean and spread are measured once it is trained."""
MOST_ON_THE_WAY = 1_000
"""The same at every checkpoint before."""
SHOWN = 8


@dataclass
class TrainedAutoencoder:
    """An autoencoder that a run made.

    Args:
        codec: With its weights, its latents whitened.
        spec: What one sample of the data that it was trained on is.
        trained: How it came to be, as plain values.
    """

    codec: AutoencoderCodec
    spec: Spec
    trained: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Writes its folder; what stands there is replaced at once and whole.

        Raises:
            OSError: The folder cannot be written; what stands there stays.
        """
        return save_codec(path, self.codec, self.spec, self.trained)

    def describe(self) -> dict[str, Any]:
        """Its description as plain values."""
        parts = described_parts({"codec": self.codec.weights()})
        return {**codec_values(self.codec, self.spec, self.trained), **parts}


class AutoencoderWork(Work):
    """An autoencoder in the making.

    Args:
        recipe: What to make.
        progress: Told while data is read, and while features are learned.

    Raises:
        DataError: The data cannot be read or learned from, or the features cannot look at it.
        IncompatibleParts: An autoencoder cannot work on such data.
        BadOption: It is to be shared out over processes.
    """

    recipe: AutoencoderRecipe
    shared = ("ddp",)

    def __init__(self, recipe: AutoencoderRecipe, progress: Progress | None = None) -> None:
        if recipe.machine.parallel == "fsdp":
            raise BadOption("machine.parallel: an autoencoder is whole on every process: set machine.parallel=ddp")
        data = recipe.data.load(progress)
        data.check()
        self.recipe, self.skipped = recipe, data.skipped
        self.train, self.held_out = data.split(recipe.training.validation_share, recipe.seed)
        if len(self.train) == 0:
            self.train.check()
        spec = data.spec
        scaled = (
            IdentityCodec.pixels()
            if spec.kind == "image"
            else IdentityCodec.standardizing(self.train.part(MOST_ON_THE_WAY).x)
        )
        try:
            self.codec = AutoencoderCodec.untrained(spec.shape, recipe.autoencoder, scaled, recipe.seed)
        except IncompatibleParts as error:
            if not spec.channels_last:
                raise
            raise IncompatibleParts(f"{spec.channels_last} ({str(error).partition(': ')[0]})") from None
        self._distance: PerceptualDistance | None = None
        if recipe.loss.perceptual:
            self._distance = PerceptualDistance(recipe.features.prepare(self.train.part(), progress))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See `Work.input_shape`."""
        return self.train.spec.shape

    def seen(self, x: Tensor) -> Tensor:
        """See `Work.seen`."""
        return self.codec.data.encode(x)

    def trainee(self) -> AutoencoderTrainee:
        """See `Work.trainee`."""
        recipe, own = self.recipe, self.codec.autoencoder
        codec = self.codec.with_weights(own.state_dict())
        codec.autoencoder.requires_grad_(True)
        return AutoencoderTrainee(
            codec, recipe.loss, self.distance(), self.train, self.held_out, recipe.seed, recipe.machine.micro_batch,
            recipe.machine.workers,
        )  # fmt: skip

    def distance(self) -> Distance | None:
        """The distance between features of data as the autoencoder has it."""
        if self._distance is None:
            return None
        at, data = {torch.device("cpu"): self._distance}, self.codec.data

        def between(made: Tensor, real: Tensor) -> Tensor:
            place = made.device
            if place not in at:
                at[place] = at[torch.device("cpu")].on(place)
            return at[place](data.decode(made), data.decode(real))

        return between

    def made(self, weights: Mapping[str, Tensor], trained: Mapping[str, Any], path: str) -> TrainedAutoencoder:
        """See `Work.made`; the latents are whitened by the training data."""
        last = trained["steps"] >= self.recipe.training.steps
        most = MOST_WHITENED if last else MOST_ON_THE_WAY
        some, device = self.train.part(most).x[:most], self.recipe.machine.torch_device()
        codec = self.codec.with_weights(weights).whitened(some, device)
        return TrainedAutoencoder(codec, self.train.spec, dict(trained))

    def draw(self, made: Made, path: Path) -> None:
        """See `Work.draw`: samples, and what they come back as."""
        from ..pictures.grid import image_grid

        spec = self.train.spec
        if spec.kind != "image":
            return
        assert isinstance(made, TrainedAutoencoder)
        data = self.held_out if len(self.held_out) else self.train
        real = data.take(torch.arange(min(SHOWN, len(data)))).x
        back = made.codec.decode(made.codec.encode(real)).round().clamp(0, 255).to(torch.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        image_grid(torch.cat([real, back]), columns=len(real)).save(content, format="png")
        write_atomically(path, content.getvalue())

    def summary(self) -> list[tuple[str, str]]:
        """See `Work.summary`."""
        parameters = sum(p.numel() for p in self.codec.autoencoder.parameters())
        latents = self.codec.shape(self.train.spec.shape)
        return [("network", f"autoencoder, {parameters:,} parameters, latents of shape {latents}")]

    def goodbye(self, folder: Path) -> str:
        """See `Work.goodbye`."""
        return (
            f"the autoencoder stands in {folder / 'model'}; to judge it: unnoise reconstruct {folder}; to train on its latents: "
            f"codec.name=autoencoder codec.path={folder}"
        )
