"""Work on a GPU that is recorded once and replayed: of a small network, launching a step takes longer than the step does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from ..errors import IncompatibleParts

T = TypeVar("T")

WARM = 3
"""Calls before the recorded one, in which libraries choose their kernels and take the memory that they work in."""


class Recording(Generic[T]):
    """Work whose operations are recorded once on a GPU, as a CUDA graph, and replayed from then on; elsewhere it is just done.

    Args:
        work: Reads and writes the same memory at every call, and waits for no number of the GPU.
        device: Where that memory is.

    Raises:
        IncompatibleParts: The work cannot be recorded.
        torch.OutOfMemoryError: The memory does not suffice for it.

    References:
        Accelerating PyTorch with CUDA Graphs (Nguyen et al., 2021), https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs
    """

    def __init__(self, work: Callable[[], T], device: torch.device) -> None:
        self.work, self.device = work, device
        self._calls = 0
        self._recorded: tuple[torch.cuda.CUDAGraph, T] | None = None

    def __call__(self) -> T:
        """What the work gives; from one call to the next it stands in the same memory."""
        self._calls += 1
        if self.device.type != "cuda" or self._calls <= WARM:
            return self.work()
        with torch.cuda.device(self.device):
            if self._recorded is None:
                self._recorded = self._record()
            graph, result = self._recorded
            graph.replay()
        return result

    def _record(self) -> tuple[torch.cuda.CUDAGraph, T]:
        graph = torch.cuda.CUDAGraph()
        try:
            # By thread, since another one may prepare examples meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                return graph, self.work()
        except RuntimeError as error:
            for each in (error, error.__context__):  # to end a recording that failed may fail too, with other words
                if isinstance(each, torch.OutOfMemoryError):  # which says nothing about what can be recorded
                    raise each from None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise IncompatibleParts(f"a step cannot be recorded ({reason}): set machine.cuda_graphs=false") from error
