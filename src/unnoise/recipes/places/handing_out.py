"""Handing parts out to workers that may die: which worker does what next, and what is done again."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ...errors import WorkersLost
from .base import Keep, Progress

TRIES = 3
"""How often a part is begun before it is taken to be the part that kills its workers."""
_LOOK_EVERY = 0.2  # seconds; how soon a stop is noticed


class Died(Exception):
    """A worker is gone, and with it what it was doing; the message says why, where that is known."""


class Workers(ABC):
    """Processes that can be hired and given parts. Whatever takes time has a ticket, which is there before it is done."""

    most: int
    """How many are wanted."""
    wanted: str
    """What they are and what there is for them, for the message where none comes."""

    @abstractmethod
    def hire(self) -> tuple[Any, Hashable]:
        """A new worker, and the ticket of its being ready."""

    @abstractmethod
    def give(self, worker: Any, part: range) -> Hashable:
        """Has a worker that is ready do a part; the ticket of it."""

    @abstractmethod
    def wait(self, tickets: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        """Those that are done, as soon as one is, or after so many seconds."""

    @abstractmethod
    def take(self, ticket: Hashable) -> Any:
        """What came of a ticket that is done.

        Raises:
            Died: The worker is gone.
            Exception: What the job raised.
        """


def hand_out(
    workers: Workers,
    parts: Sequence[range],
    keep: Keep,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    patience: float = 600.0,
) -> bool:
    """Has workers do all parts; one whose worker dies is given to another, at most three times in all.

    A worker gets a part only once it is ready, so that one for which a cluster has no room yet holds nothing up.

    Args:
        workers: Who does them.
        parts: What is to be done.
        keep: Called with each part that is done.
        progress: Told how many samples are done, and how many there are.
        stop: When true, parts in work are finished and kept, and no more are begun.
        patience: Seconds until the first worker must be ready.

    Returns:
        Whether all parts are done.

    Raises:
        WorkersLost: No worker came up in time, or the workers of one part died three times.
        Exception: What the job or `keep` raises.
    """
    waiting, idle = deque(parts), deque[Any]()
    working: dict[Hashable, tuple[Any, range | None]] = {}  # by ticket; None for a worker that is not ready yet
    deaths: Counter[range | None] = Counter()
    done, total, latest, met = 0, sum(map(len, parts)), time.monotonic() + patience, False

    def hire() -> None:
        worker, ticket = workers.hire()
        working[ticket] = worker, None

    def assign() -> None:
        while idle and waiting and not stop():
            worker, part = idle.popleft(), waiting.popleft()
            working[workers.give(worker, part)] = worker, part

    for _ in range(min(workers.most, len(parts))):
        hire()
    while True:
        assign()
        if not any(part is not None for _, part in working.values()) and (not waiting or stop()):
            return not waiting
        if not met and time.monotonic() > latest:
            raise WorkersLost(f"no worker was ready within {patience:g} seconds: {workers.wanted}")
        finished = []
        for ticket in workers.wait(list(working), _LOOK_EVERY):
            worker, part = working.pop(ticket)
            try:
                result = workers.take(ticket)
            except Died as death:
                deaths[part] += 1
                if deaths[part] == TRIES:
                    raise WorkersLost(_told(part, death)) from None
                if part is not None:
                    waiting.appendleft(part)
                hire()
                continue
            met = True
            idle.append(worker)
            if part is not None:
                finished.append((part, result))
        assign()  # before what is done is kept, so that nobody waits for that
        for part, result in finished:
            keep(part, result)
            done += len(part)
            if progress is not None:
                progress(done, total)


def _told(part: range | None, death: Died) -> str:
    if part is None:
        return f"{TRIES} workers died before they were ready ({death})"
    return (
        f"the worker that made samples {part[0]} to {part[-1]} died {TRIES} times ({death}): what is done stays; where the "
        "memory did not suffice, take fewer workers or a smaller batch"
    )
