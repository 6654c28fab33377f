"""The sum of the gradients of several processes, begun while the backward pass is still at work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .flat import Flat
from .parallel import Processes

PART = 8_000_000
"""Numbers that are sent at once: enough to fill a network, few enough that the first ones travel early."""


class GradientSum:
    """Sums one vector of gradients over all processes, part by part.

    A backward pass finishes the gradients of the last layers first. Once it has finished all of a part, that part travels while
    the pass goes on. All processes send the same parts in the same order, whatever their own backward passes reach.

    Args:
        gradients: Of the weights, one vector.
        parameters: The network's own weights, in the order of the vector; their gradients are moved there.
        processes: That train together.
        part: Numbers that are sent at once, at least.

    References:
        PyTorch Distributed: Experiences on Accelerating Data Parallel Training (Li et al., 2020), https://arxiv.org/abs/2006.15704
    """

    def __init__(
        self, gradients: Flat, parameters: Sequence[nn.Parameter], processes: Processes, part: int = PART
    ) -> None:
        self.gradients, self.processes = gradients, processes
        self.parts, self.part_of = _parts(gradients, part)
        self.armed = False
        self._missing: list[int] = []
        self._sent: list[torch.distributed.Work] = []
        self._begin()
        if processes.count > 1:
            for place, parameter in enumerate(parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._ready, place))

    def _begin(self) -> None:
        self.armed = False
        self._sent = []
        self._missing = [self.part_of.count(number) for number in range(len(self.parts))]

    def arm(self) -> None:
        """Says that the next backward pass is the last of this step, so that what it finishes may travel."""
        self.armed = self.processes.count > 1

    def _ready(self, place: int, parameter: Tensor) -> None:
        """Called when the gradient of a weight is whole."""
        if not self.armed:
            return
        assert parameter.grad is not None
        self.gradients.views[place].add_(parameter.grad)
        parameter.grad = None
        self._missing[self.part_of[place]] -= 1
        while len(self._sent) < len(self.parts) and self._missing[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        work = torch.distributed.all_reduce(self.parts[len(self._sent)], async_op=True)
        assert work is not None
        self._sent.append(work)

    def flush(self) -> None:
        """Sends what has not been sent: to be called after the last backward pass, before processes talk of anything else."""
        while self.processes.count > 1 and len(self._sent) < len(self.parts):
            self._send()

    def finish(self) -> None:
        """Returns when the whole vector is the sum, and begins anew; alone it does nothing."""
        self.flush()
        for work in self._sent:
            work.wait()
        self._begin()


def _parts(gradients: Flat, least: int) -> tuple[list[Tensor], list[int]]:
    """The parts of a vector, the last ones first, and in which of them each of its tensors lies."""
    begins = [int(view.storage_offset()) for view in gradients.views]
    parts: list[Tensor] = []
    part_of, end = [0] * len(begins), len(gradients.vector)
    for place in reversed(range(len(begins))):
        part_of[place] = len(parts)
        if end - begins[place] >= least or place == 0:
            parts.append(gradients.vector[begins[place] : end])
            end = begins[place]
    return parts, part_of
