"""Transformers in which the tokens of a sample and those of a text attend to each other, each kind by weights of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import BadOption, ShapeError
from ..options import Checked, option
from .attention import Attention, attend
from .base import Condition, Network
from .embedding import ConditionEmbedding
from .forgetting import forgetting
from .linear import Linear
from .modulation import gated, gelu, modulated_norm
from .patches import check_divides, checked_patch, patchify, rotated, unpatchify

FREQUENCIES = 256
"""Dimension of the sinusoidal embedding of the noise level."""


@dataclass(frozen=True)
class JointConfig(Checked):
    """What all transformers of this kind are told.

    Raises:
        BadOption: The width is odd, or the heads do not divide it.
    """

    width: int = option(384, help="channels of a token, even", low=2)
    heads: int = option(6, help="attention heads, a divisor of the width", low=1)
    patch: int | tuple[int, ...] = option(
        2, help="places of a patch along every axis, or a list with one number for each axis", low=1
    )
    mlp_ratio: float = option(4.0, help="units inside the MLP of a block, in widths", low=0.25)
    context: int = option(0, help="dimension of the tokens that are asked for; 0: no tokens are", low=0)
    context_tokens: int = option(1, help="tokens of the condition that asks for nothing", low=1)
    pooled: int = option(0, help="dimension of a vector that is asked for beside them; 0: none is", low=0)

    def __post_init__(self) -> None:
        """Checks what no single range can say."""
        super().__post_init__()
        if self.width % 2:
            raise BadOption(f"width: must be even, got {self.width}")
        if self.width % self.heads:
            raise BadOption(f"heads: must divide the width {self.width}, got {self.heads}")

    @property
    def hidden(self) -> int:
        """Units inside an MLP."""
        return max(1, round(self.width * self.mlp_ratio))


class Stream(nn.Module):
    """What a block has for tokens of one kind: a layer that steers them, queries, keys and values, and an MLP (adaLN-Zero).

    Args:
        config: Of the network.
        qk_norm: Whether queries and keys are normalised.
        twice: Whether the tokens attend to themselves alone, too.
        ends: Whether the tokens are only looked at here and then left.
    """

    def __init__(self, config: JointConfig, qk_norm: bool, twice: bool = False, ends: bool = False) -> None:
        super().__init__()
        width = config.width
        self.parts = 2 if ends else 9 if twice else 6
        self.modulation = Linear(width, self.parts * width)
        self.attention = Attention(width, config.heads, qk_norm, asks=not ends, leaves=not ends)
        self.alone = Attention(width, config.heads, qk_norm) if twice else None
        self.enter = None if ends else Linear(width, config.hidden)
        self.leave = None if ends else Linear(config.hidden, width)

    def ask(self, x: Tensor, steering: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; see `Attention.ask`.

        Args:
            x: Shape (B, tokens, width).
            steering: Shape (B, parts width): shift, scale and gate of the attention, those of the MLP, those of the tokens alone.
        """
        return forgetting(self.attention.ask, modulated_norm, x, *steering.chunk(self.parts, dim=1)[:2])

    def finish(self, x: Tensor, mixed: Tensor, steering: Tensor) -> Tensor | None:
        """The tokens after the block, shape of x; None where they are left.

        Args:
            x: Shape (B, tokens, width), as they entered.
            mixed: What attention found for them, shape (B, tokens, heads, width / heads).
            steering: As in `ask`.
        """
        if self.enter is None or self.leave is None:
            return None
        _, _, gate, mlp_shift, mlp_scale, mlp_gate, *second = steering.chunk(self.parts, dim=1)
        out = gated(x, gate, self.attention.answer(mixed))
        if self.alone is not None:
            shift, scale, again = second
            out = gated(out, again, forgetting(self.alone, modulated_norm, x, shift, scale))
        hidden = forgetting(self.enter, modulated_norm, out, mlp_shift, mlp_scale)
        return gated(out, mlp_gate, forgetting(self.leave, gelu, hidden))


class JointBlock(nn.Module):
    """Words and places look at all words and places; each kind has its own weights.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), Section 4 and Figure 2,
        https://arxiv.org/abs/2403.03206

    Args:
        config: Of the network; without a context there are no words.
        qk_norm: Whether queries and keys are normalised.
        twice: Whether places attend to places alone, too.
        last: Whether the words are not needed any more after this block.
    """

    def __init__(self, config: JointConfig, qk_norm: bool, twice: bool = False, last: bool = False) -> None:
        super().__init__()
        self.places = Stream(config, qk_norm, twice)
        self.words = Stream(config, qk_norm, ends=last) if config.context else None

    def forward(
        self,
        x: Tensor,
        words: Tensor | None,
        told: Tensor,
        mask: Tensor | None = None,
        angles: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The tokens of both kinds after the block.

        Args:
            x: Shape (B, places, width).
            words: Shape (B, words, width); None where there are none.
            told: What steers, shape (B, width).
            mask: Which words, then places, are looked at, shape (B, words + places), bool; None for all.
            angles: By which queries and keys are turned, shape (words + places, width / heads / 2).

        Returns:
            Both, each of the shape with which it came; None for words that are not needed any more.
        """
        steering = self.places.modulation(told)
        if self.words is None or words is None:
            out = self.places.finish(x, turned_attention(self.places.ask(x, steering), mask, angles), steering)
            assert out is not None
            return out, None
        of_words = self.words.modulation(told)
        asked = zip(self.words.ask(words, of_words), self.places.ask(x, steering), strict=True)
        query, key, value = (torch.cat(pair, dim=1) for pair in asked)
        mixed = turned_attention((query, key, value), mask, angles)
        asking = mixed.shape[1] - x.shape[1]  # as many as there are words, or none
        out = self.places.finish(x, mixed[:, asking:], steering)
        assert out is not None
        return out, self.words.finish(words, mixed[:, :asking], of_words)


def turned_attention(asked: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, angles: Tensor | None) -> Tensor:
    """`attend` to queries, keys and values, the former two turned by angles where there are some.

    Args:
        asked: Each of shape (B, tokens, heads, channels of a head); queries may be those of the last tokens only.
        mask: Which tokens are looked at, shape (B, tokens), bool; None for all.
        angles: Shape (tokens, channels of a head / 2).
    """
    query, key, value = asked
    if angles is not None:
        query, key = rotated(query, angles[key.shape[1] - query.shape[1] :]), rotated(key, angles)
    return attend(query, key, value, mask)


class JointNetwork(Network):
    """What the transformers of this kind begin and end with: patches, words, what steers, and what becomes of the places.

    Raises:
        IncompatibleParts: The data is not a sequence, image or video, the patch does not divide its size or has another
            number of axes, or the output has another size than the input.
    """

    any_size = True
    config: JointConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        num_classes: int = 0,
        config: JointConfig | None = None,
        guidance: bool = False,
    ) -> None:
        super().__init__(shape, out_shape, num_classes, config)
        self.patch = checked_patch(self.shape, self.out_shape, self.config.patch)
        width, places = self.config.width, math.prod(self.patch)
        if self.config.context:
            self.take_context(self.config.context_tokens, self.config.context)
        if self.config.pooled:
            self.take_pooled(self.config.pooled)
        if guidance:
            self.take_guidance()
        self.embedding = ConditionEmbedding(
            FREQUENCIES, width, num_classes, pooled=self.config.pooled, guidance=guidance
        )
        self.read = Linear(self.config.context, width) if self.config.context else None
        self.enter = Linear(places * self.shape[0], width)
        self.modulation = Linear(width, 2 * width)
        self.leave = Linear(width, places * self.out_shape[0])

    def initialise(self) -> None:
        """Gives every weight its first value: all that steers and the last layer are zero; for the end of constructors."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
                if name.endswith("modulation") or layer is self.leave:
                    nn.init.zeros_(layer.weight)
        for weight in (p for p in self.embedding.parameters() if p.ndim == 2):
            nn.init.normal_(weight, std=0.02)

    def digest(self, tokens: Tensor) -> Tensor | None:
        """The words as they enter the first block, where the noise level steers them; see `Network.digest`."""
        return None if self.read is None else self.read(tokens)

    def begin(
        self, x: Tensor, noise_level: Tensor, cond: Condition | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """What blocks take: places, words, what steers, and which words and places are looked at; arguments as in `forward`.

        Returns:
            Shapes (B, places, width), (B, words, width) or None, (B, width), and (B, words + places) or None.
        """
        self.check(x, noise_level)
        check_divides(self.patch, x.shape[2:], ShapeError)
        told = self.embedding(noise_level, self.labels(cond, x), self.pooled(cond, x), self.guidance(cond, x))
        places = self.enter(patchify(x, self.patch))
        context = self.context(cond, x)
        if context is None or self.read is None:
            return places, None, told, None
        words = self.read(context.tokens) if context.made is None else context.made
        if context.mask is None:
            return places, words, told, None
        return places, words, told, nn.functional.pad(context.mask, (0, places.shape[1]), value=True)

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """Patches along each axis of samples of shape (B, C, *size)."""
        return tuple(whole // places for whole, places in zip(x.shape[2:], self.patch, strict=True))

    def end(self, places: Tensor, told: Tensor, x: Tensor) -> Tensor:
        """The output of the network, shape (B, *out_shape).

        Args:
            places: After the last block, shape (B, places, width).
            told: What steers, shape (B, width).
            x: What entered.
        """
        out = self.leave(modulated_norm(places, *self.modulation(told).chunk(2, dim=1)))
        return unpatchify(out, tuple(x.shape[2:]), self.patch)
