"""Labels: the number or the name of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadOption, nearest
from .base import Conditioning


@dataclass(frozen=True)
class LabelConditioning(Conditioning):
    """The labels of a model.

    Args:
        class_names: In the order of their numbers.
    """

    class_names: tuple[str, ...]
    key = "label"

    @property
    def null(self) -> int:
        """The label that asks for nothing: the number after the last."""
        return len(self.class_names)

    def number(self, request: str | int | None) -> int:
        """The number of a class, from its name or its number; None is the null label.

        Raises:
            BadOption: There is no such class.
        """
        if request is None:
            return self.null
        if isinstance(request, str):
            if request in self.class_names:
                return self.class_names.index(request)
            # Where names are numbers themselves, another number is a mistake, and not the place of a class.
            if (self.class_names and all(map(_is_whole, self.class_names))) or not _is_whole(request):
                raise BadOption(f"label: the model knows no label {request!r}{nearest(request, self.class_names)}")
        number = int(request)
        if not 0 <= number < self.null:
            known = ", ".join(self.class_names) or "none: it was trained without labels"
            raise BadOption(f"label: the model knows no label {request} (known: {known})")
        return number

    def encode(self, requests: Sequence[str | int | None]) -> Tensor:
        """Shape (n,), int64."""
        return torch.tensor([self.number(request) for request in requests], dtype=torch.int64)


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
