"""How many threads a run uses: one where a step is too small to share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..nn.base import Condition
from ..nn.kernels.library import counting
from ..precision import dtype_of
from .sharded import local

SMALL_STEP = 1e10  # floating-point operations; below it, waking other threads for every layer costs more than they save
QUICK, MOST_PLACES = 1e11, 1024
"""Operations that are worked out sooner than torch's compiler is imported, even if every weight acted once at every place of a
sample; and places, for attention looks at all pairs of them."""


def step_operations(
    network: nn.Module, shape: tuple[int, ...], batch_size: int, cond: Condition | None = None
) -> float:
    """The floating-point operations of one update, about: three times those of the network's forward pass.

    A weight acts at least once a sample, and only once in networks on flat samples; elsewhere the operations are counted.

    Args:
        network: F(x, noise_level, cond), or another one of x alone.
        shape: Of one sample of its input.
        batch_size: Samples an update.
        cond: What is told beside a sample, of one at least.
    """
    at_least = 6.0 * sum(p.numel() for p in network.parameters()) * batch_size
    if len(shape) == 1 or at_least >= SMALL_STEP:
        return at_least
    from torch.func import functional_call
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = place_to_try(network, shape)
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())} if device.type == "meta" else {}
    held = {name: tensor.to("meta") for name, tensor in held.items()}
    # Nothing is compiled for a single sample, of which the compiler would learn that batch sizes change.
    compiled = getattr(network, "_compiled_call_impl", None) is not None
    as_written = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    training = network.training
    network.eval()
    told = None if cond is None else {name: value[:1].to(device) for name, value in cond.items()}
    # The quickest way of attention on a processor is none that the counter knows.
    known = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.no_grad(), as_written, known, counting(), device, _Counter() as counter:
        functional_call(network, held, inputs_of(network, torch.zeros(1, *shape, dtype=dtype_of(network)), told))
    network.train(training)
    return 3.0 * counter.operations * batch_size


class _Counter(TorchDispatchMode):
    """Within it the operations of products and convolutions are summed, by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not hidden from torch's compiler, which would be imported for that, and takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **(kwargs or {}), out_val=out)
        return out


def place_to_try(network: nn.Module, shape: tuple[int, ...], samples: int = 1) -> torch.device:
    """Where a network is called to see what it does: where it is, or with tensors without memory where that would take long.

    On tensors without memory nothing is computed, but torch imports its compiler for them, which takes seconds.

    Args:
        network: F(x, noise_level, cond), or another one of x alone.
        shape: Of one sample of its input.
        samples: That it is called with.
    """
    weights = [*network.parameters(), *network.buffers()]
    if any(local(tensor) is not tensor for tensor in weights):
        return weights[0].device  # processes bring their shares together themselves
    places = math.prod(shape[1:])
    operations = 2 * places * samples * sum(p.numel() for p in network.parameters())
    here = all(tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16 for tensor in weights)
    return torch.device("cpu" if here and operations <= QUICK and places <= MOST_PLACES else "meta")


def inputs_of(network: nn.Module, x: Tensor, cond: Condition | None = None) -> tuple[Any, ...]:
    """What a network is called with, of samples: a noise level and a condition too, unless it says that it takes none."""
    alone = getattr(network, "takes_data_alone", False)
    return (x,) if alone else (x, torch.zeros(len(x), device=x.device), cond)


@contextmanager
def threads_for(operations: float) -> Iterator[int]:
    """Within it torch uses one thread for small steps, and as many as before for others.

    The rule looks at sizes and not at a clock, so that a resumed run sums in the same order.

    Args:
        operations: Floating-point operations of a step.

    Yields:
        The number of threads.
    """
    before = torch.get_num_threads()
    if operations < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
