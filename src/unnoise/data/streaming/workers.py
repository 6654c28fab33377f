"""Processes that read and decode for another one. They know no torch, start at once, and end when their parent does."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, UnnoiseError
from .reader import Read, Reader

_LENGTH = 8  # bytes that say how long a message is
# The path of this process, so that the worker finds the very same modules; a session of its own, so that Ctrl-C, which
# a terminal sends to all of a group, reaches only who can save.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from unnoise.data.streaming.workers import serve; serve()"
)


class ReadingPool:
    """Several readers of one data set, each a process; or threads, where another process could not see the data.

    Args:
        reader: Reads it.
        workers: How many.
    """

    def __init__(self, reader: Reader, workers: int) -> None:
        self.reader = reader
        here = any(entry.shard.place.startswith("memory://") for entry in reader.entries)
        content = pickle.dumps(reader)
        self._workers = [_Thread(pickle.loads(content)) if here else _Process(reader, content) for _ in range(workers)]
        self._queues = [ThreadPoolExecutor(1, thread_name_prefix="reading") for _ in self._workers]
        self.close = weakref.finalize(self, _close, self._workers, self._queues)

    def __len__(self) -> int:
        return len(self._workers)

    def submit(self, shards: NDArray[np.int64], rows: NDArray[np.int64], who: NDArray[np.int64]) -> list[Future[Read]]:
        """Asks for samples.

        Args:
            shards: Shape (n,): where each lies.
            rows: Shape (n,): which of the shard's samples it is.
            who: Shape (n,): which reader reads it.

        Returns:
            What each of the readers reads of them, in its order; a DataError is raised by the result of one that ended.
        """
        return [
            queue.submit(worker.read, shards[who == i].tolist(), rows[who == i].tolist())
            for i, (worker, queue) in enumerate(zip(self._workers, self._queues, strict=True))
        ]

    def together(self, parts: Sequence[Future[Read]], who: NDArray[np.int64]) -> Read:
        """What was asked for, in the order in which it was asked for; waits for it.

        Args:
            parts: As `submit` gave them.
            who: As it was given.

        Raises:
            DataError: A shard cannot be read, or a worker ended.
        """
        x = np.zeros((len(who), *self.reader.shape), np.uint8 if self.reader.pictures else np.float32)
        captions, broken = [""] * len(who), {}
        for i, part in enumerate(parts):
            read, places = part.result(), np.flatnonzero(who == i).tolist()
            x[places] = read.x
            for place, caption in zip(places, read.captions, strict=True):
                captions[place] = caption
            broken.update({places[at]: line for at, line in read.broken.items()})
        return Read(x, tuple(captions), dict(sorted(broken.items())))


def _close(workers: Sequence[_Thread | _Process], queues: Sequence[ThreadPoolExecutor]) -> None:
    for worker in workers:
        worker.end()
    for queue in queues:
        queue.shutdown(wait=False, cancel_futures=True)


class _Thread:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def read(self, shards: Sequence[int], rows: Sequence[int]) -> Read:
        return self.reader.read(shards, rows)

    def end(self) -> None:
        pass


class _Process:
    def __init__(self, reader: Reader, content: bytes) -> None:
        self.reader = reader
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.ended = False
        with suppress(BrokenPipeError):  # told when it is asked for something
            _send(self._pipes()[0], content)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def read(self, shards: Sequence[int], rows: Sequence[int]) -> Read:
        """See `Reader.read`.

        Raises:
            DataError: That of the reader; or the process has ended.
        """
        to, back = self._pipes()
        try:
            _send(to, pickle.dumps((shards, rows), protocol=pickle.HIGHEST_PROTOCOL))
            answer = pickle.loads(_receive(back))
        except (BrokenPipeError, EOFError, ValueError):  # the last of a pipe that was closed here
            raise DataError(self._why(shards, rows)) from None
        if isinstance(answer, str):
            raise DataError(answer)
        read: Read = answer
        return read

    def _why(self, shards: Sequence[int], rows: Sequence[int]) -> str:
        if self.ended:
            return "the workers that read the data were told to end"
        code = self.process.wait()
        how = f"ended with code {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"was ended by {signal.Signals(-code).name}"
        first = dict.fromkeys(shards)
        places = [f"{self.reader.entries[s].shard.name} (sample {rows[shards.index(s)]} ...)" for s in list(first)[:3]]
        more = f" and {len(first) - 3} more shards" if len(first) > 3 else ""
        hint = (
            "if the memory was full, take fewer machine.workers"
            if code == -signal.SIGKILL
            else "see above for its last words"
        )
        return f"a worker that reads the data {how} while it read {', '.join(places)}{more}: {hint}"

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.ended = True
        self.process.kill()
        self.process.wait()
        for pipe in self._pipes():
            with suppress(OSError):
                pipe.close()


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(_LENGTH, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    length = pipe.read(_LENGTH)
    if len(length) < _LENGTH:
        raise EOFError
    content = pipe.read(size := int.from_bytes(length, "little"))
    if len(content) < size:
        raise EOFError
    return content


def serve() -> None:
    """What a worker does: reads what it is asked for until nobody asks any more."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing that a library prints gets between the answers
    answer = partial(_send, answers)
    with suppress(EOFError, BrokenPipeError):
        reader: Reader = pickle.loads(_receive(asked))
        while True:
            shards, rows = pickle.loads(_receive(asked))
            answer(pickle.dumps(_answer(reader, shards, rows), protocol=pickle.HIGHEST_PROTOCOL))


def _answer(reader: Reader, shards: Sequence[int], rows: Sequence[int]) -> Any:
    try:
        return reader.read(shards, rows)
    except UnnoiseError as error:
        return str(error)
    except Exception as error:  # whatever it is, the run must know it, and end with its state saved
        where = ", ".join(dict.fromkeys(reader.entries[shard].shard.name for shard in shards))
        return f"{where} cannot be read: {type(error).__name__}: {error}"
