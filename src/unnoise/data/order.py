"""The order in which a run sees its data: a pure function of seed and position, so that a run may go on anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..randomness import address, permutations, random_words

Positions = NDArray[np.int64]
Indices = NDArray[np.int64]


class Order(ABC):
    """Which sample each position sees. Every sample is seen exactly once in an epoch of N positions."""

    @abstractmethod
    def index_at(self, positions: Positions) -> Indices:
        """The numbers of the samples that are seen at some positions.

        Args:
            positions: Shape (n,), from 0 on: position p is the p-th sample that the run sees.

        Returns:
            Shape (n,), each in [0, N).
        """


class ShuffledOrder(Order):
    """Every epoch a permutation of its own, of all samples: for data that can be read anywhere at no cost.

    Args:
        size: How many samples there are, N.
        seed: Which order.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._known: tuple[int, NDArray[np.int64]] | None = None  # the first epoch, and one row each from there on

    def index_at(self, positions: Positions) -> Indices:
        """See `Order.index_at`."""
        epochs, place = np.divmod(positions, self.size)
        first, last = int(epochs.min()), int(epochs.max())
        if self._known is None or not self._known[0] <= first <= last < self._known[0] + len(self._known[1]):
            self._known = first, permutations(self.seed, self.size, first, last - first + 1)
        indices: Indices = self._known[1][epochs - self._known[0], place]
        return indices


class InterleavedOrder(Order):
    """Reads shards from front to back, from several places at a time, and shuffles what lies near each other.

    In every epoch the shards stand in a random sequence, which is cut into `lanes` spans of about equally many samples.
    Positions take the lanes in turn, `stripe` at a time: position p belongs to lane (p div stripe) mod lanes. Within a lane
    the samples are permuted in windows of `window` neighbours. A reader therefore has about `lanes` shards open, holds
    about `lanes` x `window` samples at most, and reads every shard once an epoch. Where a batch has lanes x stripe samples,
    a process that takes the r-th of R equal parts of every batch, R a divisor of `lanes`, reads only the shards of its own
    lanes.

    Args:
        counts: How many samples each shard has.
        seed: Which order.
        lanes: How many places are read in turn.
        window: Samples of a lane that are permuted among each other.
        stripe: Positions in a row that belong to one lane.
    """

    def __init__(
        self, counts: Sequence[int] | NDArray[np.int64], seed: int, lanes: int, window: int, stripe: int = 1
    ) -> None:
        self.counts, self.lanes, self.stripe = np.asarray(counts, dtype=np.int64), lanes, stripe
        self.size, self.seed, self.window = int(self.counts.sum()), seed, window
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._windows: dict[tuple[int, int, int], NDArray[np.int64]] = {}

    def index_at(self, positions: Positions) -> Indices:
        """See `Order.index_at`."""
        epochs, lane = positions // self.size, positions // self.stripe % self.lanes
        first_of_epoch, after = epochs * self.size, (epochs + 1) * self.size
        length = self._before(after, lane) - self._before(first_of_epoch, lane)
        # Where the lane begins: the samples of the epoch in the lanes before it.
        begin = self._before(after, lane, upto=True) - self._before(first_of_epoch, lane, upto=True)
        window, offset = np.divmod(self._before(positions, lane) - self._before(first_of_epoch, lane), self.window)
        keys, which = np.unique(np.stack([epochs, lane, window]), axis=1, return_inverse=True)
        at = np.empty(len(positions), dtype=np.int64)
        for i, (epoch, number, part) in enumerate(keys.T.tolist()):
            mine = np.flatnonzero(which.reshape(-1) == i)
            first, last = part * self.window, int(length[mine[0]])
            shuffled = self._window(epoch, number, part, min(self.window, last - first))
            at[mine] = begin[mine] + first + shuffled[offset[mine]]
        return self._samples(epochs, at)

    def _before(self, positions: Positions, lane: NDArray[np.int64], upto: bool = False) -> NDArray[np.int64]:
        """How many positions before some belong to a lane; or with `upto`, to any of the lanes before it."""
        rounds, rest = np.divmod(positions, self.stripe * self.lanes)
        if upto:
            return rounds * self.stripe * lane + np.minimum(rest, lane * self.stripe)
        return rounds * self.stripe + np.clip(rest - lane * self.stripe, 0, self.stripe)

    def _samples(self, epochs: NDArray[np.int64], at: NDArray[np.int64]) -> Indices:
        """The samples at some places of the sequence of shards of each epoch."""
        indices = np.empty(len(at), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            sequence, ends = self._epoch(epoch)
            turn = np.searchsorted(ends, at[mine], side="right")
            shard = sequence[turn]
            indices[mine] = self._starts[shard] + at[mine] - (ends[turn] - self.counts[shard])
        return indices

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequence of the shards in an epoch, and where each of them ends in it."""
        if epoch not in self._epochs:
            _forget(self._epochs, 8)
            words = random_words(address(self.seed, "shards", epoch), range(1), len(self.counts))[0]
            sequence = np.argsort(words, kind="stable")
            self._epochs[epoch] = sequence, np.cumsum(self.counts[sequence])
        return self._epochs[epoch]

    def _window(self, epoch: int, lane: int, part: int, size: int) -> NDArray[np.int64]:
        """The permutation of a window."""
        key = epoch, lane, part
        if key not in self._windows:
            _forget(self._windows, 4 * self.lanes)
            words = random_words(address(self.seed, "window", epoch, lane), [part], size)[0]
            self._windows[key] = np.argsort(words, kind="stable")
        return self._windows[key]


def _forget(known: dict, most: int) -> None:  # type: ignore[type-arg]
    """Makes room for one more: the oldest leaves."""
    if len(known) >= most:
        del known[next(iter(known))]
