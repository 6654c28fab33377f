"""What a codec is: encode data for the model, decode what the model made."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..options import Checked
from ..registry import Registry


class Codec(Checked, ABC):
    """The way between the space of the data and the space of the model."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Data of shape (B, ...), as its data set gives it, in the model's space, float32."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """What the model made, in the units of the data, floating point."""

    def shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample in the model's space."""
        return data_shape


codecs: Registry[Codec] = Registry("codec", "unnoise.codecs")
