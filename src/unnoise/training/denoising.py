"""A denoiser that is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..codecs.base import Codec
from ..data.base import AnyDataset
from ..denoisers.base import Denoiser
from ..objectives.base import Objective
from ..objectives.companion import Companion
from ..objectives.mse import preconditioned
from .captions import Captions
from .draws import DrawStream
from .gradient import Gradient
from .machine import Workers
from .parallel import Processes
from .recorded_gradient import RecordedGradient, always_alike, recordable
from .settings import TrainingSettings
from .state import TrainState
from .trainee import Strata, Summing, Trainee
from .validation import Validation, bayes_floor, training_oracle


@dataclass
class DenoiserTrainee(Trainee):
    """A denoiser, and what it learns.

    Args:
        denoiser: Whose network is trained.
        objective: What it learns.
        codec: The way into the model's space.
        train: The training data.
        held_out: Data for validation; empty to validate on the training data.
        seed: Of data order, times, noise and condition dropout.
        micro_batch: Most samples that go through the network at once; 0 for no limit.
        workers: Processes that read the data ahead; see `Trainee.workers`.
        captions: How the data's captions are drawn, where they are learned.
    """

    denoiser: Denoiser
    objective: Objective
    codec: Codec
    train: AnyDataset
    held_out: AnyDataset
    seed: int
    micro_batch: int = 0
    workers: Workers = "auto"
    captions: Captions | None = None

    @property
    def module(self) -> nn.Module:
        """See `Trainee.module`."""
        return self.denoiser

    @property
    def network(self) -> nn.Module:
        """See `Trainee.network`."""
        network = preconditioned(self.denoiser).network
        assert network is not None
        return network

    @property
    def recordable(self) -> bool:
        """See `Trainee.recordable`."""
        return always_alike(self.denoiser, self.objective, self.companion())

    def companion(self) -> Companion:
        """See `Trainee.companion`."""
        return self.objective.companion(self.denoiser.schedule)

    def examples(self, state: TrainState) -> DrawStream:
        """See `Trainee.examples`."""
        size = state.settings.batch_size
        return DrawStream(
            self.train, self.codec, self.denoiser, self.objective, size, self.seed, state.companion.history,
            state.processes.share(size), self.captions, state.masters.vector.device,
        )  # fmt: skip

    def gradient(self, state: TrainState) -> Summing:
        """See `Trainee.gradient`."""
        gradient = Gradient(self.objective, self.denoiser, state, self.seed, state.companion)
        return RecordedGradient(gradient) if state.memory.records and recordable(gradient) else gradient

    def validation(self, settings: TrainingSettings, processes: Processes) -> tuple[Validation, Strata | None]:
        """See `Trainee.validation`."""
        parts = self.codec, self.denoiser, self.objective, settings.validation_size, self.seed
        train = self.train.part(settings.validation_size)
        floor = (
            bayes_floor(train, *parts) if processes.first and train is self.train and self.captions is None else None
        )  # only who knows all of the data knows it, and nobody that of words, which are not an oracle's condition
        if len(self.held_out):
            return Validation(self.held_out.part(settings.validation_size), *parts, self.captions), floor
        validation = Validation(train, *parts, self.captions)
        if floor is not None:
            # By time on the very triples of the validation loss, so that what both owe to chance cancels in their difference.
            own = validation.floor(training_oracle(train, self.codec, self.denoiser))
            floor = Strata(floor.loss, own.by_time, own.t)
        return validation, floor
