"""Labels as they come, numbers or words, made into class numbers and class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def number_labels(values: Sequence[int] | Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers and class names of labels: whole numbers in their order, words by the alphabet.

    Args:
        values: The N labels.

    Returns:
        Shape (N,), int64 in [0, K), and the K names.
    """
    names = sorted({str(value) for value in values})
    if all(_is_whole(name) for name in names):
        names.sort(key=int)
    number = {name: k for k, name in enumerate(names)}
    return torch.tensor([number[str(value)] for value in values], dtype=torch.int64), tuple(names)


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
