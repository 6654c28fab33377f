"""Muon: matrices move by their momentum with all of its singular values made alike; other weights by AdamW."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ...options import option
from ...precision import Precision, compute_dtype
from ..flat import Flat
from ..parallel import Processes
from ..recording import Recording
from .base import Memory, Optimizer, Rate, adamw, optimizers

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's quintic: it brings small singular values up fastest, and leaves all of them between about 0.7 and 1.2."""

WIDE = 2
"""So many times more columns than rows, and the iterations are cheaper on XX^T; in coarse numbers squares would lose too much."""


@optimizers.register("muon")
@dataclass(frozen=True)
class MuonOptimizer(Optimizer):
    """Matrices and kernels are turned by the nearest orthogonal matrix to their momentum; the rest goes by AdamW.

    Every matrix moves by 0.2 sqrt(max(rows, columns)) times the learning rate, so that rates and decays of AdamW fit. A kernel is
    the matrix (out, in x height x width). Labels, tokens, places, the first and the last layer are left to AdamW.

    References:
        Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024), https://kellerjordan.github.io/posts/muon/
        Muon is Scalable for LLM Training (Liu et al., 2025), Equation 4, https://arxiv.org/abs/2502.16982
    """

    momentum: float = option(0.95, help="memory of the moving average of a matrix's gradient", low=0.0, high=0.9999)
    iterations: int = option(5, help="of Newton-Schulz, which makes singular values alike", low=1, high=100)
    beside: tuple[str, ...] = option(
        (
            "enter.weight",
            "leave.weight",
            "first.weight",
            "last.weight",
            "*label.weight",
            "*tokens.weight",
            "*positions",
        ),
        help="matrices that are left to AdamW, by patterns of their names",
    )
    eps: float = option(1e-8, help="AdamW's", low=0.0, high=1.0)
    precision: Precision = option(
        "auto", help="numbers of Newton-Schulz: fp32, bf16; auto is bf16 where that is faster"
    )

    moments: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")
    elementwise: ClassVar[bool] = False

    def begin(self, weights: Flat, gradients: Flat) -> Memory:
        """See `Optimizer.begin`; the second moment is remembered where AdamW needs it."""
        views = dict(zip(weights.names, weights.views, strict=True))
        others = {name: view for name, view in views.items() if not self._takes(name, view)}
        moments = {"first_moment": weights.another(), "second_moment": Flat(others, weights.vector.dtype)}
        return Memory(weights, gradients, moments)

    def update(self, memory: Memory, rate: Rate) -> None:
        """See `Optimizer.update`."""
        memory.updates.add_(1)
        memory.decay(rate.learning_rate * rate.weight_decay, rate.only_matrices)
        if memory.plan is None:
            memory.plan = self._plan(memory)
        plan = memory.plan
        assert isinstance(plan, _Plan)
        if plan.others:
            weights, gradients, moving = plan.others
            adamw(weights, gradients, moving, memory.moments["second_moment"].views, memory.updates, rate, self.eps)
        if plan.matrices:
            torch._foreach_add_(plan.matrices, plan.turned(), alpha=-0.2 * rate.learning_rate)

    def _plan(self, memory: Memory) -> _Plan:
        """Which weights go which way, found once: hundreds of names are matched with patterns."""
        names, first = memory.weights.names, memory.moments["first_moment"].views
        columns = list(zip(memory.weights.views, memory.gradients.views, first, strict=True))
        mine = [self._takes(name, weight) for name, (weight, *_) in zip(names, columns, strict=True)]
        others = [column for column, taken in zip(columns, mine, strict=True) if not taken]
        matrices = [tuple(map(lying, column)) for column, taken in zip(columns, mine, strict=True) if taken]
        weights, gradients, momenta = (list(each) for each in zip(*matrices, strict=True)) if matrices else ([], [], [])
        alike = self._alike(weights, memory.processes)
        turned = partial(self._turned, gradients, momenta, alike, memory.processes)
        return _Plan(
            [list(each) for each in zip(*others, strict=True)],
            weights,
            Recording(turned, memory.weights.vector.device)
            if memory.records and memory.processes.count == 1
            else turned,
        )

    def _takes(self, name: str, weight: Tensor) -> bool:
        matrix = weight.ndim >= 2 and weight.shape[0] > 1 and weight.numel() > weight.shape[0]
        names = name, name.removeprefix("network.")  # the second as it is called where no words are read
        return matrix and not any(fnmatch(each, pattern) for each in names for pattern in self.beside)

    def _turned(
        self, gradients: list[Tensor], momenta: list[Tensor], alike: list[list[int]], processes: Processes
    ) -> list[Tensor]:
        """Brings gradients into momenta, all with no more rows than columns, and gives what the matrices move by."""
        torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
        ahead = torch._foreach_lerp(gradients, momenta, self.momentum)  # Nesterov's
        # A process turns its share of them, and zeros stand for those of the others until all are summed.
        turned = Flat({str(i): each for i, each in enumerate(ahead)}, ahead[0].dtype)
        for places in alike:
            stack = torch.stack([ahead[i] for i in places])
            dtype = compute_dtype(self.precision, stack.device) if stack.dtype == torch.float32 else stack.dtype
            found = orthogonal(stack.to(dtype), self.iterations).to(stack.dtype) * math.sqrt(stack.shape[2])
            torch._foreach_copy_([turned.views[i] for i in places], list(found))
        processes.add(turned.vector)
        return turned.views

    def _alike(self, matrices: Sequence[Tensor], processes: Processes) -> list[list[int]]:
        """Which matrices this process turns: those of one shape at once, and the dear ones shared out first."""
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        owed = [0] * processes.count
        for i in sorted(range(len(matrices)), key=lambda i: -work(matrices[i].shape, self.iterations)):
            rank = owed.index(min(owed))
            owed[rank] += work(matrices[i].shape, self.iterations)
            if rank == processes.rank:
                alike[matrices[i].shape].append(i)
        return list(alike.values())


@dataclass
class _Plan:
    """What goes which way.

    Args:
        others: Weights, gradients and momenta of what is left to AdamW; empty where nothing is.
        matrices: What is turned, with no more rows than columns.
        turned: Gives what they move by.
    """

    others: list[list[Tensor]]
    matrices: list[Tensor]
    turned: Callable[[], list[Tensor]]


def lying(weight: Tensor) -> Tensor:
    """A weight as a matrix with no more rows than columns, which shares its memory."""
    matrix = as_matrix(weight)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def work(shape: Sequence[int], iterations: int) -> int:
    """What it costs to turn a matrix with no more rows than columns, in multiplications, about."""
    rows, columns = shape
    inner = rows if columns >= WIDE * rows else columns
    return rows * rows * (2 * columns + iterations * (rows + 2 * inner))


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as a view of shape (out, rest), its other dimensions in the order that they have in memory."""
    strides = weight.stride()
    inner = sorted(range(1, weight.ndim), key=lambda d: -strides[d])
    return weight.permute(0, *inner).view(weight.shape[0], -1)


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    r"""About the orthogonal factors U V^T of matrices U S V^T, by Newton-Schulz.

    .. math:: X \leftarrow a X + (b\,XX^T + c\,(XX^T)^2)\, X

    Args:
        matrices: Shape (N, rows, columns) with rows <= columns.
        iterations: Five bring singular values above about 0.001 of the largest to between 0.7 and 1.2.

    Returns:
        The same shape and dtype.
    """
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if x.shape[2] >= WIDE * x.shape[1] and x.dtype in (torch.float32, torch.float64):
        return _factor(x @ x.mT, iterations) @ x
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _factor(gram: Tensor, iterations: int) -> Tensor:
    """What all iterations together multiply X by from the left: a polynomial of XX^T, so that the columns are not in the loop."""
    a, b, c = COEFFICIENTS
    made = step = None
    for _ in range(iterations):
        gram = gram if step is None else step @ gram @ step  # that of the X that the last step made
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        made = step if made is None else step @ made
    assert made is not None
    return made
