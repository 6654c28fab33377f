"""The nearest rows of a data set: exact, and in blocks, so that tens of thousands of images fit a small machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError

_BLOCK = 2**22  # values of one block of rows, and of one block of distances
_SPARE = 6  # candidates beyond those asked for, whose distances are worked out exactly as well
_FEW = 64  # dimensions up to which single precision saves no time
_RANGE = 1e12  # magnitudes whose squares single precision holds
_SURE = 8.0  # see `_doubt`


class Neighbours(NamedTuple):
    """What is nearest to each row.

    Args:
        distances: Euclidean, rising along each row, shape (N, k), float64.
        indices: Of the rows of the data, shape (N, k), int64.
    """

    distances: Tensor
    indices: Tensor


def nearest(
    x: Tensor,
    data: Tensor,
    k: int = 2,
    exclude_self: bool | Tensor = False,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    r"""The k nearest rows of the data, for each row of x.

    Candidates are found by matrix products, :math:`|y|^2 - 2 x \cdot y`, in single precision around the mean of the data;
    the distances of the best k + 6 are then worked out from differences in double precision. Where rounding could have hidden
    a nearer row from the candidates, that row of x is searched again in double precision. A distance is therefore right to
    1e-15 of itself even where it is nearly 0. Memory is bounded by a few blocks of 4 million values and the answer.

    Args:
        x: Shape (N, ...), any real dtype; may be mapped from disk.
        data: Shape (M, ...), of as many values a row; likewise.
        k: How many, from 1 to M.
        exclude_self: Whether x is the data, so that row i is no neighbour of itself; or, for a part of the data, which rows
            they are, shape (N,), int64.
        progress: Told how many rows of the data have been looked at, and how many there are.

    Raises:
        ShapeError: The rows do not match, or there are none.
        BadOption: k is out of range.
        DataError: Some rows are not finite.

    References:
        A New Approach to Probabilistic Rounding Error Analysis (Higham and Mary, 2019), Theorem 3.1,
        https://doi.org/10.1137/18M1226312
    """
    a, b = _rows("x", x), _rows("data", data)
    if a.shape[1] != b.shape[1]:
        raise ShapeError(f"expected rows of one length, got x {tuple(x.shape)} and data {tuple(data.shape)}")
    own = _own(exclude_self, len(a), len(b))
    most = len(b) - (own is not None)
    if not 1 <= k <= most:
        raise BadOption(f"k: must be from 1 to {most}, the number of other rows, got {k}")
    (centre, reach), (_, reach_x) = _measured("data", b), _measured("x", a)
    wanted = min(k + _SPARE, most)
    narrow = min(reach, reach_x or 1.0) > 1 / _RANGE and max(reach, reach_x) < _RANGE
    double = a.shape[1] <= _FEW or not narrow or torch.get_float32_matmul_precision() != "highest"
    dtype = torch.float64 if double else torch.float32
    squares, indices, doubt = _candidates(a, b, centre, wanted, own, dtype, progress)
    found = _exact(a, b, indices, k)
    if not double and wanted < most:
        # What is no candidate lies at least as far as the last candidate, as far as rounding can tell.
        sure = found.distances[:, -1].square() <= squares[:, -1].double() - doubt
        unsure = (~sure).nonzero()[:, 0]
        if len(unsure):
            part = a[unsure]
            again = _candidates(part, b, centre, wanted, own if own is None else own[unsure], torch.float64)
            better = _exact(part, b, again[1], k)
            found.distances[unsure], found.indices[unsure] = better
    return found


def _rows(name: str, x: Tensor) -> Tensor:
    if x.ndim < 1 or x.numel() == 0:
        raise ShapeError(f"expected {name} of shape (N, ...) with at least one row, got {tuple(x.shape)}")
    return x.detach().reshape(len(x), -1)


def _own(exclude_self: bool | Tensor, num: int, of: int) -> Tensor | None:
    if exclude_self is False:
        return None
    own = torch.arange(of) if exclude_self is True else exclude_self
    if own.shape != (num,):
        raise ShapeError(f"expected the rows of the data that x is, got {num} rows of x for {tuple(own.shape)} of {of}")
    return own


def _measured(name: str, rows: Tensor) -> tuple[Tensor, float]:
    """The mean row, float64, and the largest magnitude."""
    total, most, bad = torch.zeros(rows.shape[1], dtype=torch.float64), 0.0, 0
    for block in rows.split(_height(rows.shape[1])):
        wide = block.to("cpu", torch.float64)
        largest = float(wide.abs().max())
        if not math.isfinite(largest):
            bad += int((~torch.isfinite(wide)).any(1).sum())
        total += wide.sum(0)
        most = max(most, largest)
    if bad:
        raise DataError(f"{bad} of {len(rows)} rows of {name} hold NaN or infinity: they lie nowhere")
    return total / len(rows), most


def _height(width: int) -> int:
    """Rows of one block."""
    return max(1, min(2048, _BLOCK // width))


def _centred(block: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    exact = block.dtype == torch.float32 or block.element_size() < 4
    wide = block.to("cpu", dtype if exact else torch.float64)
    return (wide - centre.to(wide.dtype)).to(dtype)


def _candidates(
    a: Tensor,
    b: Tensor,
    centre: Tensor,
    wanted: int,
    own: Tensor | None,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The squared distances and indices of the nearest, as far as this precision tells, shape (N, wanted), and the doubt, (N,)."""
    squares = torch.full((len(a), wanted), math.inf, dtype=dtype)
    indices = torch.zeros((len(a), wanted), dtype=torch.int64)
    lengths, longest = torch.zeros(len(a), dtype=torch.float64), 0.0
    tall, wide = _height(a.shape[1]), _height(b.shape[1])
    for start in range(0, len(b), wide):
        columns = _centred(b[start : start + wide], centre, dtype)
        norms = columns.square().sum(1)
        longest = max(longest, math.sqrt(float(norms.max())))
        for top in range(0, len(a), tall):
            rows = _centred(a[top : top + tall], centre, dtype)
            here = slice(top, top + len(rows))
            norm = rows.square().sum(1)
            lengths[here] = norm.double().sqrt()
            block = torch.addmm(norms, rows, columns.T, alpha=-2).add_(norm[:, None])
            if own is not None:
                at = own[here] - start
                inside = ((at >= 0) & (at < len(columns))).nonzero()[:, 0]
                block[inside, at[inside]] = math.inf
            best = block.topk(min(wanted, len(columns)), largest=False)
            both = torch.cat([squares[here], best.values], 1)
            squares[here], order = both.topk(wanted, largest=False)
            indices[here] = torch.cat([indices[here], best.indices + start], 1).gather(1, order)
        if progress is not None:
            progress(min(start + wide, len(b)), len(b))
    return squares, indices, _doubt(lengths + longest, a.shape[1], dtype)


def _doubt(lengths: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    r"""How far a squared distance may be off by rounding: :math:`(8 \sqrt D + 8) u (|x| + |y|)^2`, all but surely.

    A sum of D products is off by no more than :math:`\lambda \sqrt D u |x| |y|` but for a chance of :math:`2 D e^{-\lambda^2 / 2}`.
    """
    return (_SURE * math.sqrt(width) + 8) * torch.finfo(dtype).eps / 2 * lengths.square()


def _exact(a: Tensor, b: Tensor, indices: Tensor, k: int) -> Neighbours:
    """The k nearest of the candidates, from differences in double precision."""
    distances = distances_to(a, b, indices)
    near = distances.sort(dim=1, stable=True)
    return Neighbours(near.values[:, :k].contiguous(), indices.gather(1, near.indices[:, :k]))


def distances_to(x: Tensor, data: Tensor, indices: Tensor, rows: Tensor | None = None) -> Tensor:
    """From each row to the rows of the data that it names.

    Args:
        x: Shape (N, D).
        data: Shape (M, D).
        indices: Shape (N, k), int64.
        rows: Which rows of x are meant, shape (N,), int64; by default, all in their order.

    Returns:
        Shape (N, k), float64.
    """
    height = max(1, _BLOCK // (indices.shape[1] * x.shape[1]))
    # One answer for all: small ones that outlive each block would keep the memory between them from being used again.
    distances = torch.empty(indices.shape, dtype=torch.float64)
    for start in range(0, len(indices), height):
        at = indices[start : start + height]
        own = x[start : start + height] if rows is None else x[rows[start : start + height]]
        apart = data[at.reshape(-1)].to("cpu", torch.float64, copy=True).reshape(*at.shape, -1)
        apart.sub_(own.to("cpu", torch.float64)[:, None])
        torch.linalg.vector_norm(apart, dim=2, out=distances[start : start + height])
    return distances
