"""The gradient of one batch, in micro batches where it does not fit at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objectives.examples import Prepared
from .memory import most_at_once
from .state import TrainState
from .trainee import Summing


def accumulated(
    gradient: Summing, batch: Prepared, first: int, micro_batch: int = 0, measure: bool = False
) -> tuple[Tensor, tuple[float, Tensor] | None]:
    """Brings the gradient of the mean loss of a batch into the state, a micro batch at a time.

    Args:
        gradient: Of the loss.
        batch: This process's part of the batch.
        first: Where that part begins in the batch.
        micro_batch: Most samples at once; 0 for no limit.
        measure: Whether to measure the gradient of a part, for which a batch that fits at once is split in two.

    Returns:
        The losses of this process's samples, and the size and squared norm of the gradient of a part where it was measured.
    """
    state, processes = gradient.state, gradient.state.processes
    whole, size = state.settings.batch_size, len(batch.inputs)
    shares = processes.shares(whole)
    largest = max(shares)
    most = most_at_once(largest, micro_batch, measure)
    # A gradient that is sharded comes as the mean over the processes, and what is wanted is the sum.
    together = processes.count if state.sharded else 1
    found, part = [], None
    for i in range(0, largest if state.sharded else size, most):
        if i + most >= size and not (measure and i == 0):  # of which the norm is asked before others are added
            state.sum.arm()
        if i < size:
            found.append(gradient.add(batch.slice(i, min(i + most, size)), together / whole, first + i))
        else:  # sharded networks work in all processes or none: one whose share is done adds nothing
            gradient.add(batch.slice(0, 1), 0.0, first)
        if measure and i == 0 and most < whole:
            seen = sum(min(most, share) for share in shares) if state.sharded else min(most, size)
            part = seen, (state.norm() * (whole / seen)).square()
    return torch.cat(found) if len(found) > 1 else found[0], part


def show(state: TrainState, losses: Tensor, batch: Prepared, first: int) -> None:
    """Shows the companion the losses of the whole batch, of which every process has a part.

    Args:
        state: Whose companion may want them.
        losses: Of this process's part, shape (B,).
        batch: That part.
        first: Where it begins in the batch.
    """
    stratum = batch.draws.stratum
    if state.companion.history is None or stratum is None:
        return
    state.sum.flush()
    both = torch.zeros(2, state.settings.batch_size, dtype=losses.dtype, device=losses.device)
    both[:, first : first + len(losses)] = torch.stack([losses, stratum.to(losses)])
    state.processes.add(both)
    state.companion.observe(both[0], both[1].round().long())
