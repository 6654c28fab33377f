"""Examples that are ready before they are asked for: workers read and decode ahead, a thread of its own prepares."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from queue import Empty, Full, Queue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.base import AnyDataset, Dataset
from ..data.streaming.dataset import ShardedDataset
from ..data.streaming.reader import Read
from ..data.streaming.workers import ReadingPool
from ..errors import DataError
from ..objectives.base import Prepared
from ..precision import processors
from .machine import Workers
from .parallel import ALONE, Processes
from .stream import HERE, ExampleStream

MOST_AHEAD = 2**28
"""Bytes of examples that are held ready, about; two blocks in any case."""
MOST_CHOSEN = 4
"""Processes that read the data where nobody said how many."""
_LOOK = 0.2  # seconds after which who waits looks whether it should go on waiting


def workers_for(workers: Workers, data: AnyDataset, processes: Processes = ALONE) -> int:
    """How many processes read the data for one process of a run.

    Where nobody said, each process of the run keeps a processor for itself and has a share of the others. On a single processor
    a worker would only take turns with the step.

    Args:
        workers: What was asked for.
        data: What is learned.
        processes: That train together.
    """
    if workers != "auto":
        return workers
    if not isinstance(data, ShardedDataset):  # in memory, or mapped into it
        return 0
    return max(0, min(MOST_CHOSEN, processors() // processes.local_count - 1))


class PrefetchedStream:
    """An `ExampleStream` whose examples are worked out ahead: the same bytes, whatever the number of workers.

    Data in shards is read and decoded by `workers` processes, a few blocks of steps ahead; a thread makes examples of it.
    Where times follow the losses of the steps before, only the reading runs ahead. What is held is bounded.

    Args:
        stream: The examples, as they would be worked out in the loop.
        workers: Processes that read; 0 works everything out when it is asked for.
        processes: That train together, and go through the steps together.
    """

    def __init__(self, stream: ExampleStream, workers: int, processes: Processes = ALONE) -> None:
        self.stream, self.workers, self.processes = stream, workers, processes
        self.waited = 0.0  # seconds in which the loop had nothing to do
        self._since: float | None = None
        self._block: tuple[int, list[Prepared]] | None = None
        ahead = _blocks_ahead(stream)
        self._reading = _ReadAhead(stream, workers, ahead) if workers else None
        self._thread = _Preparing(stream, self._reading, ahead) if workers and stream.history is None else None
        self.close = weakref.finalize(self, _close, self._thread, self._reading)

    @property
    def waiting(self) -> float:
        """The share of the time since the first step in which the loop waited for examples."""
        return 0.0 if self._since is None else self.waited / max(time.perf_counter() - self._since, 1e-9)

    def step(self, step: int, device: torch.device) -> Prepared:
        """The examples of one step; see `ExampleStream.step`.

        Raises:
            DataError: The data cannot be read any more, or a worker ended, in this process or in another one.
        """
        number = step // self.stream.block_steps
        if self._block is None or self._block[0] != number:
            self._block = number, self._in_all(number, device)
        return self._block[1][step % self.stream.block_steps]

    def _in_all(self, number: int, device: torch.device) -> list[Prepared]:
        """The steps of a block, once all processes have theirs: one that stopped alone would leave the others in a step."""
        if self.processes.count == 1:
            return self._timed(number, device)
        made: list[Prepared] | None = None
        wrong = None
        try:
            made = self._timed(number, device)
        except DataError as error:
            wrong = str(error)
        if self.processes.any(made is None, HERE):
            said = [(rank, line) for rank, line in enumerate(self.processes.hear(wrong)) if line is not None]
            raise DataError(f"process {said[0][0]} of {self.processes.count}: {said[0][1]}")
        assert made is not None
        return made

    def _timed(self, number: int, device: torch.device) -> list[Prepared]:
        began = time.perf_counter()
        steps = self.stream.steps_of(self._worked_out(number).to(device))
        now = time.perf_counter()
        if self._since is None:
            self._since = now  # to begin takes its time, and is not counted
        else:
            self.waited += now - began
        return steps

    def _worked_out(self, number: int) -> Prepared:
        if self._thread is not None:
            return self._thread.block(number)
        if self._reading is not None:
            self._reading.begin(number)
        return self.stream.block(number)


def _close(thread: _Preparing | None, reading: _ReadAhead | None) -> None:
    if thread is not None:
        thread.stop.set()
    if reading is not None:
        reading.close()
    if thread is not None:
        thread.end()


def _blocks_ahead(stream: ExampleStream) -> int:
    """Blocks that are held ready: at least 2, at most 16, and about MOST_AHEAD bytes of them in between."""
    size = len(stream.positions(0)) * int(np.prod(stream.dataset.spec.shape)) * 4 * 4  # data, noise, input and target
    return max(2, min(16, MOST_AHEAD // max(size, 1)))


class _ReadAhead:
    """Reads the data of the blocks to come; it takes the place of `ExampleStream.read`."""

    def __init__(self, stream: ExampleStream, workers: int, ahead: int) -> None:
        self.stream, self.ahead = stream, ahead
        self._take = stream.dataset.take
        self.dataset = stream.dataset if isinstance(stream.dataset, ShardedDataset) else None
        self.pool = None if self.dataset is None else ReadingPool(self.dataset.reader, workers)
        self._asked: OrderedDict[int, tuple[NDArray[np.int64], NDArray[np.int64], list[Future[Read]]]] = OrderedDict()
        self._here: tuple[NDArray[np.int64], Dataset] | None = None
        stream.read = self.read

    def begin(self, number: int) -> None:
        """Asks for the data of a block and of those after it, and waits for that of the first.

        Raises:
            DataError: It cannot be read, or a worker ended.
        """
        if self.pool is None or self.dataset is None:
            return
        for each in [known for known in self._asked if not number <= known < number + self.ahead]:
            for future in self._asked.pop(each)[2]:
                future.cancel()
        for each in range(number, int(min(number + self.ahead, self.stream.blocks))):
            if each not in self._asked:
                indices = self.stream.order.index_at(self.stream.positions(each))
                who = self.dataset.readers_of(indices, len(self.pool))
                self._asked[each] = indices, who, self.pool.submit(*self.dataset.places(indices), who)
        indices, who, parts = self._asked.pop(number)
        self._here = indices, self.dataset.made_of(indices, self.pool.together(parts, who))

    def read(self, indices: Tensor) -> Dataset:
        """Samples: out of the block that was begun where they are all in it, else read now."""
        if self._here is None:
            return self._take(indices)
        known, data = self._here
        wanted = indices.numpy()
        if np.array_equal(known, wanted):
            return data
        order = np.argsort(known, kind="stable")
        at = np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)
        places = order[at]
        return data.take(torch.from_numpy(places)) if np.array_equal(known[places], wanted) else self._take(indices)

    def close(self) -> None:
        """Ends the workers."""
        if self.pool is not None:
            self.pool.close()


class _Preparing:
    """A thread that prepares one block after the other, a few ahead of the loop."""

    def __init__(self, stream: ExampleStream, reading: _ReadAhead | None, ahead: int) -> None:
        self.stream, self.reading = stream, reading
        self.ready: Queue[tuple[int, Prepared | BaseException]] = Queue(ahead)
        self.stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._threads = torch.get_num_threads()

    def block(self, number: int) -> Prepared:
        """A block; those after it are begun.

        Raises:
            DataError: The data cannot be read, or a worker ended.
        """
        if self._thread is None:
            self._start(number)
        made, result = self._next()
        if made != number:  # the loop went back, after the last block too, or began elsewhere
            self.end()
            self._start(number)
            made, result = self._next()
        if isinstance(result, BaseException):
            self.end()
            raise result
        return result

    def _next(self) -> tuple[int, Prepared | BaseException]:
        while True:
            try:
                return self.ready.get(timeout=_LOOK)
            except Empty:
                assert self._thread is not None
                if not self._thread.is_alive() and self.ready.empty():
                    return -1, EOFError("there is no block after the last")

    def _start(self, number: int) -> None:
        self.stop.clear()
        while not self.ready.empty():
            self.ready.get_nowait()
        self._thread = threading.Thread(target=self._run, args=(number,), name="preparing", daemon=True)
        self._thread.start()

    def _run(self, number: int) -> None:
        torch.set_num_threads(self._threads)  # a setting of each thread, and sums depend on it
        while number < self.stream.blocks and not self.stop.is_set():
            result: Prepared | BaseException
            try:
                if self.reading is not None:
                    self.reading.begin(number)
                result = self.stream.block(number)
            except BaseException as error:  # raised where the loop waits for it
                result = error
            while not self.stop.is_set():
                try:
                    self.ready.put((number, result), timeout=_LOOK)
                    break
                except Full:
                    continue
            if isinstance(result, BaseException):
                return
            number += 1

    def end(self) -> None:
        """Ends the thread, which is done with its block first."""
        self.stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
