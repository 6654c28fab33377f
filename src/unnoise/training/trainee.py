"""What the training loop asks of whatever is trained: examples, gradients, and how well it does on fixed ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor, nn

from ..data.base import AnyDataset
from ..objectives.companion import Companion
from ..objectives.examples import Prepared
from .machine import Workers
from .parallel import ALONE, Processes
from .settings import TrainingSettings
from .state import TrainState
from .stream import ExampleStream


@dataclass(frozen=True)
class Strata:
    """A loss, by time.

    Args:
        loss: The mean over all triples.
        by_time: The mean within each of the strata of time, from low to high noise; empty where nothing has a time.
        t: The middle time of each stratum.
        more: Other numbers about the same samples, by name.
    """

    loss: float
    by_time: tuple[float, ...] = ()
    t: tuple[float, ...] = ()
    more: Mapping[str, float] = field(default_factory=dict)


class Summing(Protocol):
    """Brings gradients of the loss into the state of a run."""

    state: TrainState

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """Adds the gradient of `scale` times the sum of what is minimised, which for most objectives is the losses.

        Args:
            examples: Of the state's step.
            scale: One over the batch size, for a mean.
            first: Where they begin in the batch.

        Returns:
            The loss of every example, shape (B,), without a graph.
        """
        ...


class Validating(Protocol):
    """Fixed samples that a loss is told of."""

    def loss(self, module: nn.Module, batch_size: int = 256, processes: Processes = ALONE) -> Strata:
        """The loss of what is trained; processes share the batches, whose samples stay the same.

        Args:
            module: The same in all processes.
            batch_size: Samples at once.
            processes: That all call this.
        """
        ...


class Trainee(ABC):
    """What is trained on what."""

    train: AnyDataset
    """The training data."""
    held_out: AnyDataset
    """Data for validation; empty to validate on the training data."""
    seed: int
    """Of data order, noise, and whatever else is drawn."""
    micro_batch: int
    """Most samples that go through the network at once; 0 for no limit."""
    workers: Workers
    """Processes that read the data ahead; 0 reads it when it is needed, and "auto" is settled by `workers_for`."""
    whole: ClassVar[bool] = False
    """Whether the loss of a sample depends on all others of its batch, so that no part of a batch can be looked at by itself."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What is trained, with all that it needs to be asked."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The part of it whose weights a run's state holds."""

    @property
    def recordable(self) -> bool:
        """Whether the same operations bring every gradient, so that a GPU may record them."""
        return False

    @abstractmethod
    def companion(self) -> Companion:
        """What goes beside the network through a run, before the first step."""

    @abstractmethod
    def examples(self, state: TrainState) -> ExampleStream:
        """What a run in this state learns from."""

    @abstractmethod
    def gradient(self, state: TrainState) -> Summing:
        """What brings the gradients of its loss into a state."""

    @abstractmethod
    def validation(self, settings: TrainingSettings, processes: Processes) -> tuple[Validating, Strata | None]:
        """Fixed samples, and the Bayes floor of the training data where it can be worked out; all processes call this."""
