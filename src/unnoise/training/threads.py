"""How many threads a run uses: one where a step is too small to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_STEP = 1e9  # floating-point operations; below it, waking a second thread costs more than it saves


@contextmanager
def threads_for(parameters: int, batch_size: int) -> Iterator[int]:
    """Within it torch uses one thread for dense networks with small steps, and as many as before for others.

    The rule looks at sizes and not at a clock, so that a resumed run sums in the same order.

    Args:
        parameters: Of a network in which every parameter acts once a sample.
        batch_size: Samples a step.

    Yields:
        The number of threads.
    """
    before = torch.get_num_threads()
    if 6 * parameters * batch_size < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
