"""How many threads a run uses: one where a step is too small to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.base import Condition
from ..precision import dtype_of
from .sharded import local

SMALL_STEP = 1e10  # floating-point operations; below it, waking other threads for every layer costs more than they save


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
    from torch.utils.flop_counter import FlopCounterMode

    # On tensors without memory: there no kernel steps in that the counter does not know, such as oneDNN's or our own.
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shared_out = any(
        local(tensor) is not tensor for tensor in held.values()
    )  # processes bring their shares together themselves
    unreal = {} if shared_out else {name: tensor.to("meta") for name, tensor in held.items()}
    device = next(network.parameters()).device if shared_out else torch.device("meta")
    # Nothing is compiled for a single sample, of which the compiler would learn that batch sizes change.
    compiled = getattr(network, "_compiled_call_impl", None) is not None
    as_written = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    training = network.training
    network.eval()
    with torch.no_grad(), as_written, device, FlopCounterMode(display=False) as counter:
        told = None if cond is None else {name: value[:1].to(device) for name, value in cond.items()}
        functional_call(network, unreal, inputs_of(network, torch.zeros(1, *shape, dtype=dtype_of(network)), told))
    network.train(training)
    return 3.0 * counter.get_total_flops() * batch_size


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
