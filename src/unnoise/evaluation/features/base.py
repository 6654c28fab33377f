"""What turns samples into features, and where such a thing comes from.

A distance between two clouds of pictures says something only in a space where like pictures lie near each other. Which
space that is decides the number, so that an extractor has a hash, of its weights and of every step before them, which stands
beside every number that it had a part in.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...data.base import Dataset, Spec
from ...errors import IncompatibleParts
from ...options import Checked
from ...registry import Registry

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


class Extractor(ABC):
    """Makes features of samples; it holds weights where it has any, and never learns."""

    dim: int
    """How many numbers a sample's features are."""
    hash: str
    """SHA-256 of the weights and of the way that leads to them, 64 hexadecimal digits."""
    resize: str
    """How samples are brought to the size that it looks at, in a few words, such as "bicubic to 299 x 299"; "none"."""
    about: dict[str, Any]
    """What a reader of a report should know of it: its name, what it was trained on, how well it does there."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Features of a batch, the same for a sample whatever stands beside it.

        Args:
            x: In the units of the data, shape (B, *shape): uint8 images, or floats.

        Returns:
            Shape (B, dim), float32, on the CPU.

        Raises:
            ShapeError: The samples have a shape that it cannot look at.
        """

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """What layers of it say of each place of a sample, so that gradients go through: what a perceptual distance compares.

        Args:
            x: In the units of the data, floats, shape (B, *shape).

        Returns:
            One tensor a layer, shape (B, channels, *places), where the network stands.

        Raises:
            IncompatibleParts: It has no such layers.
        """
        raise IncompatibleParts(
            f"the extractor {self.about.get('name')!r} has no layers that say something of places: take `own`, `inception`, "
            "`dinov2` or `clip`"
        )

    def on(self, device: torch.device) -> Self:
        """The same with its network on a device; itself where it has none."""
        network = getattr(self, "network", None)
        if network is None:
            return self
        twin = copy.copy(self)
        twin.network = copy.deepcopy(network).to(device).requires_grad_(False)  # type: ignore[attr-defined]
        if hasattr(twin, "device"):
            twin.device = device
        return twin

    def classify(self, features: Tensor) -> Tensor | None:
        """The label that is read off each sample's features, shape (B,), int64; None where it knows no labels."""
        return None


class FeatureSource(Checked, ABC):
    """A frozen dataclass that says which extractor is wanted; `prepare` brings it."""

    registered_name: ClassVar[str]

    @abstractmethod
    def prepare(self, data: Dataset, progress: Progress | None = None) -> Extractor:
        """The extractor for a data set.

        Args:
            data: The real data that samples will be compared with; some extractors are trained on it.
            progress: Told of long work.

        Raises:
            DataError: It cannot look at such data, or a file that it needs is missing or damaged.
        """

    def suits(self, spec: Spec) -> bool:
        """Whether it can look at such samples."""
        return True


extractors: Registry[FeatureSource] = Registry("feature extractor", "unnoise.evaluation.features")
