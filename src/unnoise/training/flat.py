"""Many tensors in one piece of memory, so that a thing done to all of them is done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_ALIGNED = 16  # numbers; every tensor begins at a multiple, where vector instructions like it


class Flat:
    """Tensors of given names and shapes as views into one vector.

    Each keeps the order in memory that its model has (channels-last stays so), so that copies between them are straight. The
    few numbers between two tensors are zero and stay zero under whatever is done to all, unless it is done with NaN.

    Args:
        like: What the views look like, by name.
        dtype: Of the numbers.
    """

    def __init__(self, like: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
        self.names = list(like)
        places, end = [], 0
        for tensor in like.values():
            places.append(end)
            end += -(-tensor.numel() // _ALIGNED) * _ALIGNED
        device = next((tensor.device for tensor in like.values()), torch.device("cpu"))
        self.vector = torch.zeros(end, dtype=dtype, device=device)
        self._layout = [
            (tensor.shape, _dense_strides(tensor), place) for tensor, place in zip(like.values(), places, strict=True)
        ]
        self.views = self.views_of(self.vector)

    def views_of(self, vector: Tensor) -> list[Tensor]:
        """The tensors inside another vector of the same layout."""
        return [vector.as_strided(*layout) for layout in self._layout]

    def another(self) -> Flat:
        """Zeros, laid out alike."""
        twin = object.__new__(Flat)
        twin.names, twin._layout = self.names, self._layout
        twin.vector = torch.zeros_like(self.vector)
        twin.views = twin.views_of(twin.vector)
        return twin

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copies tensors of the same shapes in, whatever their dtype."""
        torch._foreach_copy_(self.views, list(tensors))

    def zero_between(self) -> None:
        """Makes the numbers between two tensors zero again, which a step with a NaN has spoilt too."""
        outside = torch.ones_like(self.vector, dtype=torch.bool)
        for view in self.views_of(outside):
            view.fill_(False)
        self.vector.masked_fill_(outside, 0.0)

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The views, by name."""
        return {f"{prefix}/{name}": view for name, view in zip(self.names, self.views, strict=True)}


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    return torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format).stride()
