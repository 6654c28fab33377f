"""What a text encoder is: numbers of tokens to a state for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import IncompatibleParts
from ...registry import Registry

Renaming = tuple[tuple[str, str], ...]
"""Patterns of names in a file, and what each becomes here."""


class TextEncoder(nn.Module, ABC):
    """A network that reads the tokens of a text.

    Every encoder is made as `cls(config)`, with its frozen dataclass `Config`, which has at least `vocabulary` (how many tokens
    there are) and `length` (how many of them it reads at once).

    Args:
        config: The options.
    """

    Config: ClassVar[type]
    reads_padding: ClassVar[bool] = False
    """Whether the states of padding are looked at, too, as Stable Diffusion does with those of CLIP."""
    heads_divide: ClassVar[bool] = True
    """Whether the heads share out the width among them."""
    kinds: ClassVar[tuple[str, ...]] = ()
    """How such models are called in the `config.json` of Hugging Face's folders."""
    names: ClassVar[Renaming] = ()
    """How the weights are called in their files."""
    prefixes: ClassVar[tuple[str, ...]] = ()
    """What may stand before these names."""

    width: int
    """Numbers of a state."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        heads, width = config.heads, config.width
        if self.heads_divide and width % heads:
            raise IncompatibleParts(
                f"a text encoder of width {width} cannot have {heads} heads: {heads} must divide it"
            )

    @classmethod
    @abstractmethod
    def config_of(cls, settings: dict[str, Any]) -> Any:
        """The options that a `config.json` of Hugging Face's describes.

        Args:
            settings: What it holds.

        Raises:
            KeyError: A setting without a usual value is missing.
            ValueError: The model does something that this one does not.
        """

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The state of every token.

        Args:
            ids: Shape (B, tokens), int64, in [0, vocabulary).
            mask: Which of them are no padding, same shape, bool; at least one of each row.

        Returns:
            Shape (B, tokens, width).
        """

    @property
    def pooled_width(self) -> int:
        """Numbers of the state of a whole text."""
        return self.width

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """One state for the whole text, shape (B, pooled_width): the mean over its tokens.

        Args:
            states: As `forward` gives them.
            mask: As it was given.
        """
        share = (mask / mask.sum(1, keepdim=True)).to(states.dtype)
        return torch.einsum("bt,btw->bw", share, states)

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """The blocks whose inside is worth forgetting between forward and backward."""
        return ()


text_encoders: Registry[TextEncoder] = Registry("text encoder", "unnoise.conditioning.text")
