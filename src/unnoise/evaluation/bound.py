r"""The variational bound: what it costs to send data by the discrete chain of a model, level by level.

.. math:: -\ln p(x_0) \le L_T + \sum_{k=1}^{T-1} L_k + L_0

with :math:`L_T` what the last level still tells of the data, :math:`L_k` the price of each step of the chain and :math:`L_0`
that of reading the data off the lowest level.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), Equation 5, https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, IncompatibleParts, ShapeError
from ..process.chain import Gaussian, MarkovChain
from ..process.forward import add_noise
from ..process.tabulated import DiscreteSchedule
from ..randomness import address, normal_like, uniform

_AT_ONCE = 2**18  # numbers of one network call, to bound memory


@dataclass(frozen=True)
class Bound:
    """The terms of the bound, in nats for each sample, in the space of the denoiser.

    Args:
        prior: L_T, shape (B,).
        levels: L_0 ... L_{T-1}, shape (B, T); where levels were drawn, each divided by how often it is drawn on average, and 0
            where it was not.
        standard_error: Of each sample's total, for the levels that were not drawn, shape (B,); 0 where all were.
        calls: Network calls.
    """

    prior: Tensor
    levels: Tensor
    standard_error: Tensor
    calls: int

    @property
    def total(self) -> Tensor:
        """The bound on the negative log-likelihood, shape (B,)."""
        return self.prior + self.levels.sum(1)

    @property
    def decoder(self) -> Tensor:
        """L_0, shape (B,)."""
        return self.levels[:, 0]


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser,
    x_0: Tensor,
    *,
    cond: Condition | None = None,
    bin_width: float | None = None,
    num_levels: int | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    at_once: int | None = None,
) -> Bound:
    r"""The bound of some samples, with fresh noise at each level.

    A reverse step has the variance that the network has learned, else :math:`\beta`, the best one where the noise is far below
    the spread of the data: the posterior's would cost :math:`(1/k - \ln((k + 1)/k)) / 2` more for each number at a low level k.

    Args:
        denoiser: On a discrete schedule.
        x_0: In the denoiser's space, shape (B, ...).
        cond: For the bound given a condition, tensors of the batch's size.
        bin_width: Spacing of the data's values in [-1, 1] (2 / 255 for 8-bit images), for the log-probability of whole numbers;
            None for the log-density of continuous data.
        num_levels: How many levels are evaluated for each sample: level 0, and the others drawn in proportion to what they would
            cost for data of unit variance. All if left out.
        seed: Which noise and levels.
        indices: The numbers of the samples, whose noise is the same in any batch; 0 ... B - 1 by default.
        at_once: Pairs of a sample and a level in one network call; chosen by their size by default.

    Raises:
        IncompatibleParts: The schedule has no levels.
        ShapeError: There are not as many indices as samples.
        BadOption: `num_levels` or `at_once` is out of range.
    """
    schedule = denoiser.schedule
    if not isinstance(schedule, DiscreteSchedule):
        raise IncompatibleParts(
            f"the variational bound is that of a chain of levels, and {type(schedule).__name__} has none: use the likelihood by "
            "the ODE, or train on a discrete schedule such as linear or cosine"
        )
    indices = range(len(x_0)) if indices is None else indices
    if len(indices) != len(x_0):
        raise ShapeError(f"expected {len(x_0)} indices, one for each sample, got {len(indices)}")
    chain, total = MarkovChain(schedule), schedule.num_steps
    if num_levels is not None and not 2 <= num_levels <= total:
        raise BadOption(f"num_levels: expected 2 to {total}, the number of levels, got {num_levels}")
    level, share = (
        _all_levels(len(x_0), total) if num_levels in (None, total) else _drawn(chain, num_levels, seed, indices)
    )
    size = math.prod(x_0.shape[1:])
    at_once = max(1, _AT_ONCE // max(size, 1)) if at_once is None else at_once
    if at_once < 1:
        raise BadOption(f"at_once: must be at least 1, got {at_once}")
    pairs = torch.cartesian_prod(torch.arange(level.shape[1]), torch.arange(len(x_0)))
    terms = torch.zeros(level.shape, dtype=torch.float64)
    parts = pairs.split(at_once)
    for part in parts:
        column, row = part.unbind(1)
        terms[row, column] = _terms(denoiser, chain, x_0, cond, level[row, column], row, bin_width, seed, indices)
    weighted = terms / share
    levels = torch.zeros(len(x_0), total, dtype=torch.float64).scatter_add_(1, level, weighted)
    drawn = weighted[:, 1:] * (level.shape[1] - 1)
    error = torch.zeros(len(x_0), dtype=torch.float64)
    if level.shape[1] < total:
        error = drawn.std(1) / math.sqrt(drawn.shape[1]) if drawn.shape[1] > 1 else torch.full_like(error, math.inf)
    return Bound(chain.prior_term(x_0.double()).cpu(), levels, error, len(parts))


def _terms(
    denoiser: Denoiser,
    chain: MarkovChain,
    x_0: Tensor,
    cond: Condition | None,
    level: Tensor,
    row: Tensor,
    bin_width: float | None,
    seed: int,
    indices: Sequence[int],
) -> Tensor:
    """The terms of pairs of a sample and a level, shape of `row`, float64 on the CPU."""
    at = row.to(x_0.device)
    clean = x_0[at]
    eps = torch.empty_like(clean)
    for each in level.unique():
        of_level = (level == each).to(x_0.device)
        numbers = [int(indices[int(i)]) for i in row[level == each]]
        eps[of_level] = normal_like(address(seed, "bound", int(each)), numbers, eps[of_level])
    t = chain.time(level)
    x_t = add_noise(clean, eps, chain.schedule, t)
    some = None if cond is None else {name: value[row.to(value.device)] for name, value in cond.items()}
    estimate, fraction = denoiser.with_variance(x_t, t.to(x_0.device), some)
    # The rest in float64: the terms are small differences.
    fraction = torch.ones_like(estimate) if fraction is None else fraction
    mean = chain.posterior(estimate.double(), x_t.double(), level).mean
    reverse = Gaussian(mean, chain.reverse_log_variance(fraction.double(), level))
    return chain.vlb_term(clean.double(), x_t.double(), level, reverse, bin_width).cpu()


def _all_levels(batch: int, total: int) -> tuple[Tensor, Tensor]:
    return torch.arange(total).expand(batch, -1), torch.ones(batch, total, dtype=torch.float64)


def _drawn(chain: MarkovChain, num: int, seed: int, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Level 0 and others by chance, and how often each is drawn on average, both of shape (B, num).

    One is drawn from each of num - 1 equal shares of their costs, so that no stretch of levels is left out by chance.
    """
    snr = chain.alpha_bars / (1 - chain.alpha_bars)
    cost = (snr[:-1] - snr[1:]) / (1 + snr[1:])
    share = cost / cost.sum()
    u = uniform(address(seed, "bound levels"), indices, num - 1)
    place = torch.from_numpy((np.arange(num - 1) + u) / (num - 1))
    level = torch.searchsorted(share.cumsum(0), place).clamp(max=len(share) - 1)
    first = torch.zeros(len(level), 1, dtype=torch.int64)
    often = (num - 1) * share[level]
    return torch.cat([first, level + 1], 1), torch.cat([torch.ones(len(level), 1, dtype=torch.float64), often], 1)
