"""What a network is asked for, as tensors by name, and how the rows of several conditions come to stand in one batch.

A condition holds some of these, one row for each sample:

- `label`, shape (B,): the number of a class;
- `context`, shape (B, tokens, dim): tokens that are looked up, such as the states of a text encoder;
- `context_mask`, shape (B, tokens), bool: which of these tokens are read. Where there is none all are;
- `pooled`, shape (B, dim): one vector, such as that of a whole text;
- `guidance`, shape (B,): the scale of a guidance that was distilled into the network.

What is left out asks for nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BadOption

Condition = Mapping[str, Tensor]

MASK = "context_mask"


class Context(NamedTuple):
    """The tokens of a batch that a network looks things up in.

    Args:
        tokens: Shape (B, tokens, dim).
        mask: Which of them are read, shape (B, tokens), bool; None for all.
        made: What the network made of the tokens alone, shape (B, tokens, channels); None where it has yet to.
    """

    tokens: Tensor
    mask: Tensor | None = None
    made: Tensor | None = None


class Memory:
    """Under which name a condition holds what one network made of its context; a copy of the network has another."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.name = f"context@{next(self._numbers)}"

    def __deepcopy__(self, memo: object) -> Memory:
        return Memory()  # the weights of the copy may become others


def is_memory(name: str) -> bool:
    """Whether this is the name of what some network made of a context."""
    return name.startswith("context@")


def level(*conditions: Condition) -> list[dict[str, Tensor]]:
    """Conditions whose contexts are equally long, so that rows of one can take the place of rows of another.

    A context that is shorter is filled up with zeros that its mask hides. Where one condition has a mask, all get one.

    Args:
        conditions: Of any numbers of samples.
    """
    found = [dict(condition) for condition in conditions]
    lengths = [each["context"].shape[1] for each in found if "context" in each]
    if len(set(lengths)) > 1 or any(MASK in each for each in found):
        found = [_longer(each, max(lengths)) if "context" in each else each for each in found]
    made = [name for each in found for name in each if is_memory(name)]
    for name in made:
        if not all(name in each for each in found):  # then it is made again of all contexts
            found = [{key: value for key, value in each.items() if key != name} for each in found]
    return found


def _longer(condition: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    context = condition["context"]
    mask = condition.get(MASK)
    if mask is None:
        mask = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
    more = length - context.shape[1]
    return {
        name: nn.functional.pad(value, (0, 0, 0, more)) if name == "context" or is_memory(name) else value
        for name, value in condition.items()
    } | {MASK: nn.functional.pad(mask, (0, more))}


def joined(*conditions: Condition) -> Condition:
    """One condition for the samples of several, one after another.

    Args:
        conditions: That hold the same names; contexts may have different numbers of tokens.

    Raises:
        BadOption: One holds what another does not.
    """
    first, *others = level(*conditions)
    for other in others:
        if other.keys() != first.keys():
            given = ", ".join(sorted(first.keys() ^ other.keys()))
            raise BadOption(f"conditions that are put together must hold the same names, and not all hold {given}")
    return {name: torch.cat([value, *(other[name].to(value) for other in others)]) for name, value in first.items()}
