"""What a run makes: the part of a run that depends on the kind of its recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..data.base import AnyDataset
from ..training.machine import Parallel
from ..training.trainee import Trainee
from .any_recipe import AnyRecipe
from .judging.while_training import Watcher
from .marks import Mark


class Made(Protocol):
    """What came of a run, as a folder holds it."""

    trained: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Writes its folder; what stands there is replaced at once and whole."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its description as plain values."""
        ...


class Work(ABC):
    """What a run does by its recipe, once its data is read and what was left open is settled."""

    recipe: AnyRecipe
    train: AnyDataset
    held_out: AnyDataset
    skipped: tuple[str, ...]
    marks: Sequence[Mark] = ()
    """What may not change before it goes on."""
    shared: ClassVar[tuple[Parallel, ...]] = ("ddp", "fsdp")
    """The ways in which several processes may train it together."""
    drawn: ClassVar[bool] = True
    """Whether `draw` has something to draw."""

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know before it begins, one line each; asked for once `trainee` was."""
        return ()

    def size_notes(self, parameters: int) -> Sequence[str]:
        """What a person should know of the place that it takes, given how many weights are trained."""
        return ()

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample of what the network takes."""

    @abstractmethod
    def seen(self, x: Tensor) -> Tensor:
        """Samples of the data, shape (n, ...), as the codec makes them: what the network is to learn."""

    @abstractmethod
    def trainee(self) -> Trainee:
        """What is trained, before its first step; each time a fresh one with the same weights."""

    @abstractmethod
    def made(self, weights: Mapping[str, Tensor], trained: Mapping[str, Any], path: str) -> Made:
        """What came of it.

        Args:
            weights: Of the trained network, by its own names.
            trained: How they came to be.
            path: The folder of the run.
        """

    @abstractmethod
    def draw(self, made: Made, path: Path) -> None:
        """Draws a picture of what it does so far, if it has one."""

    def watcher(self) -> Watcher | None:
        """Who measures it on its way; None where nobody can."""
        return None

    def facts(self) -> dict[str, Any]:
        """What is to be said of how it was trained, beside what is said of every run."""
        return {}

    @abstractmethod
    def summary(self) -> list[tuple[str, str]]:
        """What it is in a few lines, each with a name."""

    @abstractmethod
    def goodbye(self, folder: Path) -> str:
        """What a person does next."""
