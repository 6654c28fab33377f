"""What a network is to the rest of the house: it is told a noise level and a condition, and knows no schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import BadOption, IncompatibleParts, ShapeError
from ..registry import Registry
from ..shapes import per_sample

Condition = Mapping[str, Tensor]


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

    def __init__(
        self, shape: tuple[int, ...], out_shape: tuple[int, ...] | None = None, num_classes: int = 0, config: Any = None
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.out_shape = self.shape if out_shape is None else tuple(out_shape)
        self.num_classes = num_classes
        self.config = self.Config() if config is None else config
        self.condition_keys = ("label",) if num_classes else ()
        if not self.shape or min(math.prod(self.shape), math.prod(self.out_shape)) < 1 or num_classes < 0:
            given = f"{self.shape}, {self.out_shape} and {num_classes} classes"
            raise IncompatibleParts(f"a network needs a shape in, a shape out and at least 0 classes, got {given}")

    @abstractmethod
    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction.

        Args:
            x: Shape (B, *shape), scaled to unit variance.
            noise_level: Shape (B,): 0 for clean data, about 1000 for pure noise.
            cond: Tensors by the names in `condition_keys`; None asks for the unconditional prediction.

        Returns:
            Shape (B, *out_shape).
        """

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """The blocks whose inside is worth forgetting, or spreading over processes, between forward and backward; none here."""
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

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The condition that says nothing, for `batch` samples: the label after the last one, and the null tokens."""
        null = {}
        if self.num_classes:
            null["label"] = torch.full((batch,), self.num_classes, dtype=torch.int64, device=device)
        if "context" in self.condition_keys:
            null["context"] = self.null_context.to(device).expand(batch, -1, -1)
        return null

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

    def context(self, cond: Condition | None, x: Tensor) -> Tensor:
        """The tokens in a condition, shape (B, tokens, dim), in the dtype of x; the null tokens where there are none.

        Raises:
            BadOption: The condition holds something that this network was not made for.
            ShapeError: There are not some tokens of the right dimension for each sample.
        """
        self._check_names(cond)
        if cond is None or "context" not in cond:
            return self.null_context.to(x).expand(len(x), -1, -1)
        given, dim = cond["context"], self.null_context.shape[1]
        if given.ndim != 3 or given.shape[0] != len(x) or not given.shape[1] or given.shape[2] != dim:
            raise ShapeError(f"expected a context of shape ({len(x)}, tokens, {dim}), got {tuple(given.shape)}")
        return given.to(x)

    def _check_names(self, cond: Condition | None) -> None:
        unknown = sorted(set(cond or {}) - set(self.condition_keys))
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
