r"""An embedded Runge-Kutta pair in which every sample of a batch has its own place and its own step.

It solves :math:`dy / dk = F(k, y)` from one k to another, up or down. Two solutions of different order share their stages; their
difference tells the error of a step, and the error the length of the next one. As no sample looks at another, what comes out
does not depend on the batch, and who has arrived is no longer asked.

References:
    A family of embedded Runge-Kutta formulae (Dormand and Prince, 1980), Table 2, https://doi.org/10.1016/0771-050X(80)90013-3
    Solving Ordinary Differential Equations I (Hairer, Nørsett and Wanner, 1993), Sections II.4 (step size) and II.6 (dense output)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import SamplingDiverged, ToleranceNotMet

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""F of some samples: k (n,) in float64, y (n, M) and their numbers in the batch (n,) to dy/dk (n, M)."""

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (
        35 / 384,
        0.0,
        500 / 1113,
        125 / 192,
        -2187 / 6784,
        11 / 84,
    ),  # the solution of order 5: its slope begins the next step
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_BEND = (
    -12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
    701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423,
)  # fmt: skip

CALLS_A_STEP = 6
_SHORTEST, _LONGEST = 0.2, 10.0  # how much a step may change from one to the next
_SAFETY = 0.9


class Tolerance(NamedTuple):
    """When a step is good enough: its error is at most absolute + relative |y|, in the root mean square over each group."""

    relative: float
    absolute: float
    max_calls: int = 100_000


class Reached(NamedTuple):
    """How far every sample has come, and the step that led there."""

    k: Tensor
    """Where each is, shape (B,), float64."""
    y: Tensor
    """Shape (B, M)."""
    slope: Tensor
    """F there, shape (B, M)."""
    step: Tensor
    """The length to try next, shape (B,), float64, positive."""
    error: Tensor
    """That of the last accepted step, in units of the tolerance, shape (B,)."""
    refused: Tensor
    """Whether the last step was tried in vain, shape (B,)."""
    finite: Tensor
    """Whether F was a number throughout the last step tried, shape (B,)."""
    from_k: Tensor
    """Where the last accepted step began, shape (B,)."""
    from_y: Tensor
    from_slope: Tensor
    bend: Tensor
    """What the curve between the two ends needs beyond their values and slopes, shape (B, M)."""
    calls: int
    """Network calls so far, each for all samples that were still on the way."""
    evaluations: Tensor
    """How often each sample was evaluated, shape (B,), int64."""


@dataclass(frozen=True)
class Problem:
    """What is solved, and how well.

    Args:
        slope: F.
        begin: Where k begins.
        end: Where it ends, above or below.
        tolerance: The error of a step.
        groups: Columns of each group of y that keeps the tolerance by itself; they sum to M. One group if left out.
        name: Says where a k stands, for messages.
    """

    slope: Slope
    begin: float
    end: float
    tolerance: Tolerance
    groups: tuple[int, ...] = ()
    name: Callable[[float], str] = lambda k: f"k = {k:.6g}"

    @property
    def _sign(self) -> float:
        return 1.0 if self.end >= self.begin else -1.0

    def norm(self, values: Tensor, *of: Tensor) -> Tensor:
        """The size of `values` in units of the tolerance for numbers as large as `of`, shape (n,), float64 on the CPU."""
        largest = of[0].abs() if len(of) == 1 else torch.maximum(*(y.abs() for y in of))
        ratio = values / (self.tolerance.absolute + self.tolerance.relative * largest)
        parts = ratio.double().square().split(list(self.groups or (values.shape[1],)), 1)
        return torch.stack([part.mean(1) for part in parts]).amax(0).sqrt().cpu()

    def start(self, y: Tensor) -> Reached:
        """The beginning: two calls, which also find the length of the first step.

        Args:
            y: Shape (B, M).
        """
        n = len(y)
        k, rows = torch.full((n,), self.begin, dtype=torch.float64), torch.arange(n)
        slope = self.slope(k, y, rows)
        span = abs(self.end - self.begin)
        size, rate = self.norm(y, y), self.norm(slope, y)
        tiny = (size < 1e-5) | (rate < 1e-5)
        guess = torch.where(tiny, 1e-6, 0.01 * size / rate).clamp(max=span)
        calls = 1
        if span:
            ahead = y + _over(self._sign * guess, y) * slope
            bend = self.norm(self.slope(k + self._sign * guess, ahead, rows) - slope, y) / guess
            steepest = torch.maximum(rate, bend)
            step = torch.where(steepest < 1e-15, (guess * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** (1 / 5))
            guess, calls = torch.minimum(100 * guess, step).clamp(max=span), 2
            guess = torch.where(guess.isfinite(), guess, 0.0)  # too short to be tried
        ones, none = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
        return Reached(
            k, y, slope, guess, ones, none, guess > 0, k, y, slope, torch.zeros_like(y), calls, torch.full((n,), calls)
        )

    def advance(self, reached: Reached, until: float) -> Reached:
        """Steps on until every sample has come as far as `until`, or beyond it.

        Args:
            reached: How far they have come.
            until: Between `begin` and `end`.

        Raises:
            ToleranceNotMet: Steps became shorter than the numbers can hold, or there were more calls than allowed.
            SamplingDiverged: F is infinite or not a number.
        """
        while True:
            rows = ((until - reached.k) * self._sign > 0).nonzero()[:, 0]
            if not len(rows):
                return reached
            self._check(reached, rows)
            reached = self._try(reached, rows)

    def _check(self, reached: Reached, rows: Tensor) -> None:
        left = (self.end - reached.k[rows]).abs()
        shortest = 4 * torch.finfo(reached.y.dtype).eps
        short = (reached.step[rows] < shortest) & (left > shortest)
        over = reached.calls + CALLS_A_STEP > self.tolerance.max_calls
        if not over and not bool(short.any()):
            return
        behind = reached.k[rows[int((left * (short | over)).argmax())]]
        where, r, a = self.name(float(behind)), self.tolerance.relative, self.tolerance.absolute
        if not bool(reached.finite[rows].all()):
            raise SamplingDiverged(
                f"the network has answered with NaN or infinity at {where}: take a model whose training went well"
            )
        what = f"{reached.calls} network calls" if over else "steps that became too short to be told apart"
        digits = "" if reached.y.dtype == torch.float64 else " (numbers of 32 bits hold no more than about rtol=1e-5)"
        raise ToleranceNotMet(
            f"rtol={r:g}, atol={a:g} was not reached: {what} led only to {where} ({reached.calls} calls made); "
            f"ask for less accuracy, such as rtol={max(10 * r, 1e-4):g}{digits}"
            + (", or, in Python, allow more calls with max_calls" if over else "")
        )

    def _try(self, reached: Reached, rows: Tensor) -> Reached:
        """One step of the samples `rows`: for each it is taken, or another length found."""
        k, y, first = reached.k[rows], _rows(reached.y, rows), _rows(reached.slope, rows)
        length = torch.minimum(reached.step[rows], (self.end - k).abs())
        h = self._sign * length
        slopes = [first]
        there, ahead = k, y
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            there = torch.where(length == (self.end - k).abs(), self.end, k + h) if node == 1 else k + node * h
            ahead = y + _over(h, y) * _sum(weights, slopes)
            slopes.append(self.slope(there, ahead, rows))
        error = self.norm(_over(h, y) * _sum(_ERROR, slopes), y, ahead)
        good = error <= 1  # not where it is NaN
        finite = error.isfinite()
        error = torch.where(finite, error.clamp(min=1e-10), torch.inf)
        by_both = (
            _SAFETY * error ** (-0.7 / 5) * reached.error[rows] ** (0.4 / 5)
        )  # a proportional and an integral part
        longest = torch.where(reached.refused[rows], 1.0, _LONGEST)
        factor = torch.where(good, by_both, _SAFETY * error ** (-1 / 5)).clamp(min=_SHORTEST)
        step = length * torch.minimum(factor, torch.where(good, longest, 1.0))
        # A step that the end has cut short says little of what is possible: the longer one stands.
        step = torch.where(good & (length < reached.step[rows]), torch.maximum(step, reached.step[rows]), step)
        taken = rows[good]
        some = good.to(y.device)
        evaluations = reached.evaluations.index_add(0, rows, torch.full_like(rows, CALLS_A_STEP))
        moved = reached._replace(
            step=reached.step.index_copy(0, rows, step),
            refused=reached.refused.index_copy(0, rows, ~good),
            finite=reached.finite.index_copy(0, rows, finite),
            calls=reached.calls + CALLS_A_STEP,
            evaluations=evaluations,
        )
        if not len(taken):
            return moved
        new = [there[good], ahead[some], slopes[-1][some], error[good], k[good], y[some], first[some]]
        new.append((_over(h, y) * _sum(_BEND, slopes))[some])
        if len(taken) < len(reached.k):
            r = reached
            old = (r.k, r.y, r.slope, r.error, r.from_k, r.from_y, r.from_slope, r.bend)
            new = [o.index_copy(0, taken.to(o.device), n) for o, n in zip(old, new, strict=True)]
        there, ahead, slope, error, k, y, first, bend = new
        return moved._replace(
            k=there, y=ahead, slope=slope, error=error, from_k=k, from_y=y, from_slope=first, bend=bend
        )


def between(reached: Reached, k: float) -> Tensor:
    """Where every sample was at k, within the last step of each; of order 4, shape (B, M)."""
    y = reached.y
    if bool((reached.k == k).all()):
        return y
    h = reached.k - reached.from_k
    still = h == 0
    length = _over(h, y)
    part = _over(torch.where(still, 1.0, (k - reached.from_k) / torch.where(still, 1.0, h)), y)
    move = y - reached.from_y
    early = length * reached.from_slope - move
    late = move - length * reached.slope - early
    return reached.from_y + part * (move + (1 - part) * (early + part * (late + (1 - part) * reached.bend)))


def _over(values: Tensor, y: Tensor) -> Tensor:
    return values.to(device=y.device, dtype=y.dtype)[:, None]


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    return values if len(rows) == len(values) else values[rows.to(values.device)]


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total: Tensor | None = None
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = weight * slope if total is None else total.add(slope, alpha=weight)
    assert total is not None
    return total
