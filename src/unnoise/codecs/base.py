"""What a codec is: encode data for the model, decode what the model made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..options import Checked
from ..registry import Registry

Positions = Sequence[int] | NDArray[np.int64]


class Codec(Checked, ABC):
    """The way between the space of the data and the space of the model.

    It is a frozen dataclass of its options. One that is learned holds weights beside them, which a model's folder keeps.
    """

    learned: ClassVar[bool] = False
    """Whether it holds weights, so that its options alone do not make it."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Data of shape (B, ...), as its data set gives it, in the model's space, float32."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """What the model made, in the units of the data, floating point."""

    def drawn(self, x: Tensor, seed: int, positions: Positions) -> Tensor:
        """What training learns of some data: `encode`, unless the codec has several answers and draws one.

        Args:
            x: Shape (B, ...), as its data set gives it.
            seed: Of the run.
            positions: Which samples of the run they are, shape (B,).
        """
        return self.encode(x)

    def shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample in the model's space.

        Raises:
            IncompatibleParts: There is none for such data.
        """
        return data_shape

    def weights(self) -> dict[str, Tensor]:
        """What is learned, by name; nothing for most."""
        return {}

    def with_weights(self, weights: Mapping[str, Tensor]) -> Self:
        """The same with what is learned put in.

        Raises:
            ModelFolderError: They are those of another codec.
        """
        return self

    def on(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same where it is used, and in those numbers; itself where it is so already."""
        return self

    def describe(self) -> dict[str, Any]:
        """Its spec, without what says where it was read from."""
        return codecs.describe(self)


codecs: Registry[Codec] = Registry("codec", "unnoise.codecs")
