"""Network calls that requests share.

Every request runs in a thread of its own, with the same code as a call of `Model.sample`, whatever its sampler and its guidance
are. What differs is the network: a `Detour` in its place hands what it is asked to the `Meeting` of all requests of that network,
and waits. Once every request that is under way waits there, or none has come for a while, one of the waiting threads makes a
single call of all that they ask, and each goes on with its own rows of the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor, nn

from ..nn.base import Condition, Network
from ..nn.conditions import joined
from ..precision import dtype_of

SHARE_OF_CALL = 0.1
"""How long the waiting wait for one more, as a share of what the last call took, where that is longer than `linger`."""
LONGEST_LINGER = 0.02  # seconds


class _Call:
    """What one request asks of the network, and what becomes of it."""

    def __init__(self, x: Tensor, noise_level: Tensor, cond: Condition | None) -> None:
        self.x, self.noise_level, self.cond = x, noise_level, cond
        self.answer: Tensor | None = None
        self.error: BaseException | None = None
        self.taken = False
        """Whether somebody is making it."""
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def answered(self) -> bool:
        return self.answer is not None or self.error is not None

    def wake(self) -> None:
        """Lets the thread look again; only whoever holds the lock of the meeting calls this."""
        if self._gate.locked():
            self._gate.release()

    def sleep(self, seconds: float | None) -> None:
        """Until somebody wakes the thread, or for so long."""
        self._gate.acquire(timeout=-1 if seconds is None else max(seconds, 0))

    def kind(self) -> tuple[object, ...]:
        """Calls of one kind can be made as one."""
        return tuple(self.x.shape[1:]), self.x.dtype, self.x.device


class Tally:
    """Counts network calls, of all networks of an engine, even of those that are no longer in memory."""

    def __init__(self) -> None:
        self.calls = 0
        """Those that were made."""
        self.asked = 0
        """Those that were asked for; one that was shared counts once for each request."""
        self._lock = threading.Lock()

    def add(self, calls: int = 0, asked: int = 0) -> None:
        """Counts some more."""
        with self._lock:
            self.calls += calls
            self.asked += asked


class Meeting:
    """Where requests meet that ask the same network.

    Args:
        linger: Seconds that those who wait go on waiting after the last one has come, for others that are under way.
        most_rows: Samples in one call at most, unless one request alone asks for more.
        tally: Counts the calls; one of its own by default.
    """

    def __init__(self, linger: float = 0.002, most_rows: int = 1024, tally: Tally | None = None) -> None:
        self.linger, self.most_rows = linger, most_rows
        self.tally = Tally() if tally is None else tally
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._present = 0
        self._waiting: list[_Call] = []
        self._captain: _Call | None = None  # who looks whether it is time; the others sleep until they are answered
        self._calling = False
        self._stirred = 0.0  # when somebody came, or a call ended
        self._took = 0.0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """For as long as this lasts, one request more is under way, for which others wait a little."""
        with self._lock:
            self._present += 1
        try:
            yield
        finally:
            with self._lock:
                self._present -= 1
                self._wake_captain()

    def alone(self, network: nn.Module, x: Tensor, noise_level: Tensor, cond: Condition | None) -> Tensor:
        """What the network says in a call of its own."""
        with self._turn:
            self.tally.add(calls=1, asked=1)
            answer: Tensor = network(x, noise_level, cond)
        return answer

    def ask(self, network: nn.Module, x: Tensor, noise_level: Tensor, cond: Condition | None) -> Tensor:
        """What the network says, from a call that others may share.

        Raises:
            Exception: Whatever the network raises when it is asked this alone.
        """
        call = _Call(x, noise_level, cond)
        with self._lock:
            self._waiting.append(call)
            self._stirred = perf_counter()
        self.tally.add(asked=1)
        while True:
            with self._lock:
                if call.answered:
                    break
                batch, pause = self._next(call)
            if batch:
                self._call(network, batch)
            else:
                call.sleep(pause)
        if call.error is not None:
            raise call.error
        assert call.answer is not None
        return call.answer

    def _next(self, call: _Call) -> tuple[list[_Call], float | None]:
        """The calls that this thread is to make now; where there are none, how long it sleeps."""
        if call.taken:  # it woke for nothing: its call is under way
            return [], None
        if self._calling:
            self._captain = self._captain or call
            return [], None
        rows = sum(len(each.x) for each in self._waiting)
        left = self._stirred + max(self.linger, min(SHARE_OF_CALL * self._took, LONGEST_LINGER)) - perf_counter()
        if len(self._waiting) < self._present and rows < self.most_rows and left > 0:
            self._captain = self._captain or call
            return [], left if self._captain is call else None
        batch = self._waiting[:1]
        rows = len(batch[0].x)
        for each in self._waiting[1:]:
            rows += len(each.x)
            if rows > self.most_rows:
                break
            batch.append(each)
        del self._waiting[: len(batch)]
        for each in batch:
            each.taken = True
        if self._captain in batch or self._captain is call:
            self._captain = None
        self._calling = True
        return batch, None

    def _call(self, network: nn.Module, batch: list[_Call]) -> None:
        began = perf_counter()
        try:
            with self._turn:
                for group in _by_kind(batch):
                    self.tally.add(calls=_answer(network, group))
        finally:
            with self._lock:
                self._calling = False
                self._stirred = perf_counter()
                self._took = self._stirred - began
                for each in batch:
                    if not each.answered:  # a KeyboardInterrupt and the like, of which the others hear too
                        each.error = RuntimeError("the network call was interrupted")
                    each.wake()
                self._wake_captain()

    def _wake_captain(self) -> None:
        if self._captain is None and self._waiting:
            self._captain = self._waiting[0]
        if self._captain is not None:
            self._captain.wake()


def _by_kind(batch: Sequence[_Call]) -> list[list[_Call]]:
    groups: dict[tuple[object, ...], list[_Call]] = {}
    for call in batch:
        groups.setdefault(call.kind(), []).append(call)
    return list(groups.values())


@torch.no_grad()
def _answer(network: nn.Module, calls: Sequence[_Call]) -> int:
    """Answers calls of one kind, with one call of the network; where that fails, each by one of its own.

    Returns:
        How often the network was called.
    """
    if len(calls) > 1:
        try:
            x, noise_level = torch.cat([each.x for each in calls]), torch.cat([each.noise_level for each in calls])
            answers = network(x, noise_level, _together(network, calls))
            for call, rows in zip(calls, answers.split([len(each.x) for each in calls]), strict=True):
                call.answer = rows
        except Exception:
            for call in calls:
                call.answer = None
        else:
            return 1
    for call in calls:
        try:
            call.answer = network(call.x, call.noise_level, call.cond)
        except Exception as error:
            call.error = error
    return len(calls) + (len(calls) > 1)


def _together(network: nn.Module, calls: Sequence[_Call]) -> Condition | None:
    """The conditions of several calls as one; what one of them leaves out it asks nothing of."""
    conditions = [call.cond or {} for call in calls]
    if not any(conditions):
        return None
    if any(each.keys() != conditions[0].keys() for each in conditions):
        assert isinstance(network, Network)
        nulls = [network.null_condition(len(call.x), call.x.device) for call in calls]
        conditions = [{**null, **each} for null, each in zip(nulls, conditions, strict=True)]
    return joined(*conditions)


class Detour(nn.Module):
    """What stands for a network in one request.

    Args:
        network: The network itself.
        meeting: Where the requests meet that ask it.
        strict: Whether the calls of this request are never shared, so that it rounds as if it were alone.
    """

    def __init__(self, network: nn.Module, meeting: Meeting, strict: bool = False) -> None:
        super().__init__()
        self.network, self.meeting, self.strict = network, meeting, strict
        self.calls = 0
        """Calls that this request has asked for."""

    @property
    def lowered_to(self) -> torch.dtype | None:
        """See `precision.dtype_of`."""
        return dtype_of(self.network)

    @property
    def condition_keys(self) -> tuple[str, ...]:
        """Those of the network."""
        return getattr(self.network, "condition_keys", ())

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """That of the network."""
        null = getattr(self.network, "null_condition", None)
        return {} if null is None else null(batch, device)

    def remember(self, cond: Condition | None) -> Condition | None:
        """What the network makes of it."""
        remember = getattr(self.network, "remember", None)
        return cond if remember is None else remember(cond)

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """What the network says; see `Network.forward`."""
        self.calls += 1
        if self.strict or torch.is_grad_enabled():  # whoever wants a gradient needs the graph of its own call
            return self.meeting.alone(self.network, x, noise_level, cond)
        return self.meeting.ask(self.network, x, noise_level, cond)
