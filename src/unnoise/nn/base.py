"""What a network is to the rest of the house: it is told a noise level and a condition, and knows no schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import BadOption, IncompatibleParts, ShapeError
from ..precision import dtype_of
from ..registry import Registry
from ..shapes import per_sample
from .conditions import MASK, Context, Memory, is_memory
from .conditions import Condition as Condition


class ByHand(ABC):
    """The derivative of a network written out; see `Network.by_hand`."""

    @abstractmethod
    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """What the network says, as `Network.forward`, and what `back` needs is kept until the next call."""

    @abstractmethod
    def back(self, slope: Tensor) -> None:
        """Adds the gradient of every weight.

        Args:
            slope: The derivative of the loss to what `forward` gave last, of its shape.
        """


class Network(nn.Module, ABC):
    """F(x, noise_level, cond), the raw network inside a denoiser.

    Every network is made as `cls(shape, out_shape, num_classes, config)`: the shape of one sample of its input, that of
    its output (they differ when a variance is learned too, or a picture is given beside the input), the number of
    labels (0: none), and its frozen dataclass `Config`.

    Args:
        shape: The shape of one sample.
        out_shape: The shape of its output; None for that of the sample.
        num_classes: The number of labels; one more stands for no label.
        config: The options; None for the defaults.

    Raises:
        IncompatibleParts: The network cannot work on data of this shape.
    """

    Config: ClassVar[type]
    any_size: ClassVar[bool] = False
    """Whether samples of other sizes than `shape` may enter, with the same channels."""

    shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    num_classes: int
    condition_keys: tuple[str, ...] = ()
    null_context: Tensor
    """The tokens that say nothing, shape (tokens, dim), of a network that takes a context: zeros until others are put there."""
    null_pooled: Tensor
    """The vector that says nothing, shape (dim,), of a network that takes one: zeros until another is put there."""

    def __init__(
        self, shape: tuple[int, ...], out_shape: tuple[int, ...] | None = None, num_classes: int = 0, config: Any = None
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.out_shape = self.shape if out_shape is None else tuple(out_shape)
        self.num_classes = num_classes
        self.config = self.Config() if config is None else config
        self.condition_keys = ("label",) if num_classes else ()
        self.memory = Memory()
        if not self.shape or min(math.prod(self.shape), math.prod(self.out_shape)) < 1 or num_classes < 0:
            given = f"{self.shape}, {self.out_shape} and {num_classes} classes"
            raise IncompatibleParts(f"a network needs a shape in, a shape out and at least 0 classes, got {given}")

    @abstractmethod
    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction.

        Args:
            x: Shape (B, *shape), scaled to unit variance.
            noise_level: Shape (B,): 0 for clean data, about 1000 for pure noise.
            cond: Tensors by the names in `condition_keys`, see `conditions`; None asks for the unconditional prediction.

        Returns:
            Shape (B, *out_shape).
        """

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """The blocks whose inside is worth forgetting, or spreading over processes, between forward and backward; none here."""
        return ()

    def asked_alone(self) -> Sequence[nn.Module]:
        """Parts that never learn and are asked outside of a forward pass, so that every process keeps all of them; none here."""
        return ()

    def by_hand(self, gradients: Mapping[str, Tensor]) -> ByHand | None:
        """The derivative written out, to rounding what autograd gives, and faster for a small network.

        Args:
            gradients: Where the gradient of each trained weight is to be added, by its name.

        Returns:
            None where there is none, or not for what was made of this network: then autograd works it out.
        """
        return None

    def take_context(self, tokens: int, dim: int) -> None:
        """Makes this a network that is conditioned on tokens too, under the name "context"; for constructors.

        Args:
            tokens: How many the null condition has.
            dim: The dimension of a token.
        """
        self.condition_keys += ("context",)
        self.register_buffer("null_context", torch.zeros(tokens, dim))

    def take_pooled(self, dim: int) -> None:
        """Makes this a network that is conditioned on a vector too, under the name "pooled"; for constructors.

        Args:
            dim: Of the vector.
        """
        self.condition_keys += ("pooled",)
        self.register_buffer("null_pooled", torch.zeros(dim))

    def take_guidance(self) -> None:
        """Makes this a network that is told a guidance scale too, under the name "guidance"; for constructors."""
        self.condition_keys += ("guidance",)

    def null_condition(self, batch: int, device: torch.device | None = None, without: Container[str] = ()) -> Condition:
        """The condition that says nothing: the label after the last one, the null tokens, guidance 1.

        Args:
            batch: Samples.
            device: Where it is wanted.
            without: Names that are left out.
        """
        null, wanted = {}, [name for name in self.condition_keys if name not in without]
        if "label" in wanted:
            null["label"] = torch.full((batch,), self.num_classes, dtype=torch.int64, device=device)
        if "context" in wanted:
            null["context"] = self.null_context.to(device).expand(batch, -1, -1)
        if "pooled" in wanted:
            null["pooled"] = self.null_pooled.to(device).expand(batch, -1)
        if "guidance" in wanted:
            null["guidance"] = torch.ones(batch, device=device)
        return null

    @torch.no_grad()
    def remember(self, cond: Condition | None) -> Condition | None:
        """The condition together with what this network makes of its context alone, worked out now and not in every call.

        Where that is asked with it, this very network looks no further: its weights must not change meanwhile. Any other network,
        and a copy of this one, reads the context itself.

        Args:
            cond: On the device of the network.

        Returns:
            The condition with one more tensor, shape (B, tokens, channels), or as it is where there is no context.
        """
        if cond is None or "context" not in cond or "context" not in self.condition_keys:
            return cond
        tokens = cond["context"]
        made = self.digest(self._checked_tokens(tokens, len(tokens)).to(dtype_of(self) or tokens.dtype))
        return cond if made is None else {**cond, self.memory.name: made}

    def digest(self, tokens: Tensor) -> Tensor | None:
        """What the network makes of the tokens of a context alone, whatever the sample and its noise level are.

        Args:
            tokens: Shape (B, tokens, dim), in the dtype of the network.

        Returns:
            Shape (B, tokens, channels), which `context` will find; None where there is nothing that could be kept.
        """
        return None

    def labels(self, cond: Condition | None, x: Tensor) -> Tensor:
        """The labels in a condition, shape (B,); the null label where there is none.

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: There is not one label for each sample.
        """
        self._check_names(cond)
        if cond is None or "label" not in cond:
            return torch.full((len(x),), self.num_classes, dtype=torch.int64, device=x.device)
        return per_sample(cond["label"], x)

    def context(self, cond: Condition | None, x: Tensor) -> Context | None:
        """The tokens in a condition, in the dtype of x; the null tokens where there are none.

        None where this network takes none.

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: There are not some tokens of the right dimension for each sample, or the mask is not one of these tokens.
        """
        self._check_names(cond)
        if "context" not in self.condition_keys:
            return None
        if cond is None or "context" not in cond:
            return Context(self.null_context.to(x).expand(len(x), -1, -1))
        given, mask, made = self._checked_tokens(cond["context"], len(x)), cond.get(MASK), cond.get(self.memory.name)
        if mask is not None and (mask.shape != given.shape[:2] or mask.dtype != torch.bool):
            told = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise ShapeError(f"expected a context_mask of booleans, shape {tuple(given.shape[:2])}, got {told}")
        return Context(given.to(x), mask, None if made is None else made.to(x))

    def pooled(self, cond: Condition | None, x: Tensor) -> Tensor | None:
        """The vector in a condition, shape (B, dim), in the dtype of x; that of the null condition where there is none.

        None where this network takes none.

        Raises:
            ShapeError: There is not one vector of the right dimension for each sample.
        """
        if "pooled" not in self.condition_keys:
            return None
        wanted = (len(x), len(self.null_pooled))
        given = self.null_pooled.expand(wanted) if cond is None or "pooled" not in cond else cond["pooled"]
        if given.shape != wanted:
            raise ShapeError(f"expected a pooled vector of shape {wanted}, got {tuple(given.shape)}")
        return given.to(x)

    def guidance(self, cond: Condition | None, x: Tensor) -> Tensor | None:
        """The guidance scale in a condition, shape (B,), as it was given; 1 where there is none.

        None where this network takes none.

        Raises:
            ShapeError: There is not one scale for each sample.
        """
        if "guidance" not in self.condition_keys:
            return None
        if cond is None or "guidance" not in cond:
            return torch.ones(len(x), device=x.device)
        return per_sample(cond["guidance"], x)

    def _checked_tokens(self, given: Tensor, batch: int) -> Tensor:
        dim = self.null_context.shape[1]
        if given.ndim != 3 or given.shape[0] != batch or not given.shape[1] or given.shape[2] != dim:
            raise ShapeError(f"expected a context of shape ({batch}, tokens, {dim}), got {tuple(given.shape)}")
        return given

    def _check_names(self, cond: Condition | None) -> None:
        allowed = {*self.condition_keys, *([MASK] if "context" in self.condition_keys else [])}
        unknown = sorted(name for name in cond or {} if name not in allowed and not is_memory(name))
        if unknown:
            known = ", ".join(self.condition_keys) or "nothing"
            raise BadOption(f"this network is conditioned on {known}, not on {', '.join(unknown)}")

    def check(self, x: Tensor, noise_level: Tensor) -> None:
        """Checks that a batch is one that this network was made for.

        Raises:
            ShapeError: The samples have another shape, or there is not one noise level for each.
        """
        fits = x.ndim == len(self.shape) + 1 and x.shape[1] == self.shape[0]
        if not fits or not (self.any_size or x.shape[1:] == self.shape):
            raise ShapeError(f"expected x of shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if noise_level.shape != x.shape[:1]:
            raise ShapeError(f"expected a noise level of shape ({len(x)},), got {tuple(noise_level.shape)}")


networks: Registry[Network] = Registry("network", "unnoise.nn")
