"""An autoencoder that is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.autoencoder import AutoencoderCodec
from ..data.base import AnyDataset, Dataset
from ..nn.autoencoder import Autoencoder
from ..objectives.adversary import Adversary
from ..objectives.companion import Companion
from ..objectives.examples import Draws, Prepared
from ..objectives.reconstruction import Distance, ReconstructionLoss
from ..randomness import address, normal_like, uniform
from .machine import Workers
from .parallel import ALONE, Processes
from .settings import TrainingSettings
from .state import TrainState
from .stream import ExampleStream, Positions
from .trainee import Strata, Trainee
from .validation import shared_out


@dataclass
class AutoencoderTrainee(Trainee):
    """An autoencoder, and what it learns.

    Args:
        codec: Holds the autoencoder, which is trained in place.
        loss: What it learns.
        distance: Between the features of what was and what is made, where the loss has such a term.
        train: The training data.
        held_out: Data for validation; empty to validate on the training data.
        seed: Of the data order and of the latents that are drawn.
        micro_batch: Most samples that go through the autoencoder at once; 0 for no limit.
        workers: Processes that read the data ahead; see `Trainee.workers`.
    """

    codec: AutoencoderCodec
    loss: ReconstructionLoss
    distance: Distance | None
    train: AnyDataset
    held_out: AnyDataset
    seed: int
    micro_batch: int = 0
    workers: Workers = "auto"

    @property
    def module(self) -> Autoencoder:
        """See `Trainee.module`."""
        return self.codec.autoencoder

    @property
    def network(self) -> Autoencoder:
        """See `Trainee.network`."""
        return self.codec.autoencoder

    def companion(self) -> Companion:
        """See `Trainee.companion`."""
        if self.loss.adversarial is None:
            return Companion()
        return Adversary(self.loss.adversarial, self.train.spec.shape, tuple(self.last.shape), self.seed)

    @property
    def last(self) -> Tensor:
        """The weight of the layer that the data leaves by."""
        weight = self.module.decoder.leave.weight
        assert isinstance(weight, Tensor)
        return weight

    def examples(self, state: TrainState) -> PictureStream:
        """See `Trainee.examples`."""
        size = state.settings.batch_size
        return PictureStream(self.train, self.codec, bool(self.loss.kl), size, self.seed, state.processes.share(size))

    def gradient(self, state: TrainState) -> ReconstructionGradient:
        """See `Trainee.gradient`."""
        return ReconstructionGradient(self, state)

    def validation(
        self, settings: TrainingSettings, processes: Processes
    ) -> tuple[ReconstructionValidation, Strata | None]:
        """See `Trainee.validation`."""
        data = (self.held_out if len(self.held_out) else self.train).part(settings.validation_size)
        return ReconstructionValidation(self, data, settings.validation_size), None


class PictureStream(ExampleStream):
    """The examples of every step of a run of an autoencoder: the data, and the noise that its latents are drawn with.

    Args:
        dataset: What is learned.
        codec: Says how data is centred and scaled, and what shape its latents have.
        drawn: Whether latents are drawn.
        batch_size: Samples a step.
        seed: Of the run.
        share: See `ExampleStream`.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        codec: AutoencoderCodec,
        drawn: bool,
        batch_size: int,
        seed: int,
        share: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(dataset, batch_size, seed, share)
        self.codec = codec
        self.latents = codec.shape(dataset.spec.shape) if drawn else (0,)

    def block(self, block: int) -> Prepared:
        """See `ExampleStream.block`."""
        return self.made(self.positions(block))

    def made(self, positions: Positions) -> Prepared:
        """The examples at some positions of the run."""
        seen = self.dataset.augmentation.apply(self._data(positions).x, self.seed, positions)
        x = self.codec.data.encode(seen)
        like = torch.empty(len(x), *self.latents)
        noise = normal_like(address(self.seed, "latents"), positions, like)  # type: ignore[arg-type]
        nothing = torch.zeros(len(x))
        return Prepared(x, nothing, None, x, nothing, Draws(x, noise, nothing, None))


class ReconstructionGradient:
    """Brings the gradients of an autoencoder's loss into the state of a run, and lets its adversary learn.

    Args:
        trainee: What learns what.
        state: Where gradients are summed.
    """

    def __init__(self, trainee: AutoencoderTrainee, state: TrainState) -> None:
        self.trainee, self.state = trainee, state
        companion = state.companion
        self.adversary = companion if isinstance(companion, Adversary) else None

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """See `Summing.add`; the losses are those without the adversary."""
        module, x = self.trainee.module, examples.inputs
        found = self.trainee.loss(module, x, examples.draws.eps, self.trainee.distance)
        total = scale * found.losses.sum()
        objecting = self.adversary is not None and self.adversary.active(self.state.step)
        if self.adversary is not None and objecting:
            objections = scale * self.adversary.objection(found.made)
            total = total + self.adversary.weigh(scale * found.shown.sum(), objections, self.trainee.last)
        torch.autograd.backward(total, inputs=self.state.parameters)
        self.state.accumulate()
        if self.adversary is not None and objecting:
            self.adversary.learn(x, found.made, scale)
        return found.losses.detach()


class ReconstructionValidation:
    """Fixed samples that go through the autoencoder by the means of their latents.

    Args:
        trainee: What learns what.
        data: Where the samples come from.
        size: How many, at most.
    """

    def __init__(self, trainee: AutoencoderTrainee, data: Dataset, size: int) -> None:
        self.trainee = trainee
        picks = np.argsort(uniform(address(trainee.seed, "validation"), range(len(data)))[:, 0], kind="stable")
        self.x = trainee.codec.data.encode(data.take(torch.from_numpy(picks[:size].copy())).x)

    @torch.no_grad()
    def loss(self, module: nn.Module, batch_size: int = 256, processes: Processes = ALONE) -> Strata:
        """See `Validating.loss`; with the signal-to-noise ratio, in decibels, of what has values in [-1, 1]."""
        assert isinstance(module, Autoencoder)
        place = next(module.parameters()).device

        def numbers(rows: slice) -> Tensor:
            x = self.x[rows].to(place)
            found = self.trainee.loss(module, x, None, self.trainee.distance)
            error = (found.made.clamp(-1, 1) - x).flatten(1).square().mean(1)
            return torch.stack([found.losses, 10 * torch.log10(4 / error.clamp(min=1e-12))], dim=1)

        mean = shared_out(numbers, module, len(self.x), batch_size, processes).mean(0)
        more = {"psnr": float(mean[1])} if self.trainee.train.spec.kind == "image" else {}
        return Strata(float(mean[0]), more=more)
