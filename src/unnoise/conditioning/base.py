"""What a conditioning is: requests as a person writes them, to tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..nn.base import Condition


class Conditioning(ABC):
    """Turns requests into a condition, and says what asks for nothing."""

    key: str

    @abstractmethod
    def encode(self, requests: Sequence[Any]) -> Tensor:
        """The tensor for n requests, shape (n, ...); None among them asks for nothing."""

    def condition(self, requests: Sequence[Any]) -> Condition:
        """The condition that a denoiser takes."""
        return {self.key: self.encode(requests)}
