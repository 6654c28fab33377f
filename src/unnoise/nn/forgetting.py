"""What is worked out again on the way back, so that it need not be kept.

A third of what a transformer would keep stands between a normalisation or an activation and the linear layer behind it, and is soon
made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .kernels.library import followed, on_processor

T = TypeVar("T")
_FORGOTTEN: ContextVar[list[torch.UntypedStorage] | None] = ContextVar("forgotten", default=None)


def forgetting(layer: Callable[[Tensor], T], make: Callable[..., Tensor], *inputs: Tensor) -> T:
    """layer(make(*inputs)), on a CPU without keeping what lies between for the way back: there it is made again.

    On other devices, and where somebody else decides what is kept, it is kept: a compiler, or blocks that are forgotten as a whole.

    References:
        Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016), Section 3, https://arxiv.org/abs/1604.06174

    Args:
        layer: Keeps what it is given, or views of it.
        make: Gives the same bytes each time, laid out in the same way; quick beside the layer.
        inputs: Of `make`, which are kept.
    """
    made = make(*inputs)
    if not torch.is_grad_enabled() or not made.requires_grad or followed() or not on_processor(made):
        return layer(made)
    if (counted := _FORGOTTEN.get()) is not None:
        counted.append(made.untyped_storage())
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return layer(made)
    again = _Again(make, tuple(each.detach() for each in inputs))
    place = made.untyped_storage()._cdata  # a number alone: hooks live as long as the graph, and so does what they hold

    def kept(tensor: Tensor) -> Any:
        if tensor.untyped_storage()._cdata != place:
            return tensor
        return again, tensor.shape, tensor.stride(), tensor.storage_offset()

    with torch.autograd.graph.saved_tensors_hooks(kept, _found):
        return layer(made)


@dataclass(frozen=True)
class _Again:
    make: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    def __call__(self) -> Tensor:
        with torch.no_grad():
            return self.make(*self.inputs)


def _found(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    again, *layout = kept
    return again().as_strided(*layout)


@contextmanager
def forgotten() -> Iterator[list[torch.UntypedStorage]]:
    """Within it, what would be forgotten is listed, for one who counts what is kept by hooks, which forget nothing themselves."""
    found: list[torch.UntypedStorage] = []
    token = _FORGOTTEN.set(found)
    try:
        yield found
    finally:
        _FORGOTTEN.reset(token)
