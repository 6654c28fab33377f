"""Network calls that requests share.

All requests of a model are made in one thread, with the same code as a call of `Model.sample`, whatever their samplers and guidance
are, and take turns in it. What differs is the network: a `Detour` in its place notes what it is asked, and lets the next one work.
Once every request waits for an answer, a single call of the network gives all of them theirs.

Turns are greenlets and not threads: a step is a fraction of a millisecond of Python around a call, and threads that hand each other
the interpreter's lock for each would take several times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import MissingExtra
from ..nn.base import Condition, Network
from ..nn.conditions import joined
from ..precision import dtype_of

try:
    import greenlet
except ModuleNotFoundError:  # pragma: no cover
    raise MissingExtra("an engine of requests", "greenlet", "serve") from None

T = TypeVar("T")


class _Call:
    """What one request asks of a network, and what becomes of it."""

    def __init__(
        self, network: nn.Module, x: Tensor, noise_level: Tensor, cond: Condition | None, most_rows: int
    ) -> None:
        self.network, self.x, self.noise_level, self.cond, self.most_rows = network, x, noise_level, cond, most_rows
        self.who = greenlet.getcurrent()
        self.answer: Tensor | None = None
        self.error: BaseException | None = None

    def kind(self) -> tuple[object, ...]:
        """Calls of one kind can be made as one."""
        return id(self.network), tuple(self.x.shape[1:]), self.x.dtype, self.x.device


class _Alone:
    """A request whose turn it is to call its network by itself."""

    def __init__(self) -> None:
        self.who = greenlet.getcurrent()


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


class Turns:
    """A thread in which works take turns, and share what they ask of networks.

    Args:
        name: Of the thread.
        tally: Counts the calls; one of its own by default.
    """

    def __init__(self, name: str = "unnoise-turns", tally: Tally | None = None) -> None:
        self.tally = Tally() if tally is None else tally
        self._come: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._asked: list[_Call | _Alone] = []
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], T]) -> T:
        """What a work gives, which runs in the thread and may call `ask` there; whoever calls this waits.

        Raises:
            Exception: Whatever the work raises.
        """
        made: Future[T] = Future()

        def turn() -> None:
            torch.set_grad_enabled(True)  # as in any new thread, whatever the one before it left
            try:
                made.set_result(work())
            except BaseException as error:  # it is raised where the work was given
                made.set_exception(error)

        self._come.put(turn)
        return made.result()

    def ask(
        self, network: nn.Module, x: Tensor, noise_level: Tensor, cond: Condition | None, most_rows: int = 1024
    ) -> Tensor:
        """What a network says, from a call that others may share; only works may ask.

        Args:
            network: Is asked.
            x: As of `Network.forward`.
            noise_level: The same.
            cond: The same.
            most_rows: Samples in one call at most, unless this one alone has more.

        Raises:
            Exception: Whatever the network raises when it is asked this alone.
        """
        call = _Call(network, x, noise_level, cond, most_rows)
        self.tally.add(asked=1)
        self._yield(call)
        if call.error is not None:
            raise call.error
        assert call.answer is not None
        return call.answer

    def ask_alone(self, network: nn.Module, x: Tensor, noise_level: Tensor, cond: Condition | None) -> Tensor:
        """What a network says, from a call of this work's own, once all that have asked before it have their answers.

        The work makes the call itself, so that gradients flow through it; only works may ask.

        Args:
            network: Is asked.
            x: As of `Network.forward`.
            noise_level: The same.
            cond: The same.

        Raises:
            Exception: Whatever the network raises.
        """
        self._yield(_Alone())
        self.tally.add(calls=1, asked=1)
        answer: Tensor = network(x, noise_level, cond)
        return answer

    def _yield(self, call: _Call | _Alone) -> None:
        """Lets the others work until it is this call's turn."""
        self._asked.append(call)
        gradients = torch.is_grad_enabled()  # torch knows of one state in a thread, and others may leave another
        assert call.who.parent is not None
        call.who.parent.switch()
        torch.set_grad_enabled(gradients)

    def close(self, seconds: float = 10.0) -> None:
        """Ends the thread after the works that it has, and waits for that."""
        self._come.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        # No variable of this function may hold a work or a call: it would keep a model in memory for as long as nobody asks.
        closing = False
        while not (closing and not self._asked):
            closing = self._begin_newcomers() or closing
            if self._asked:
                self._answer_next()

    def _begin_newcomers(self) -> bool:
        """Works each until it asks, or is done; whether the thread is to end."""
        closing = False
        for turn in self._newcomers():
            if turn is None:
                closing = True
            else:
                greenlet.greenlet(turn).switch()
        return closing

    def _answer_next(self) -> None:
        """Makes one call, or lets who waits to make it alone; who has the answer goes on until the next one, or the end."""
        first = self._asked[0]
        if isinstance(first, _Alone):
            del self._asked[0]
            first.who.switch()
            return
        batch = self._next(first)
        self.tally.add(calls=_answer(batch))
        for call in batch:
            call.who.switch()

    def _newcomers(self) -> list[Callable[[], None] | None]:
        """Works that have not begun; waits for one where no other is under way."""
        found = [] if self._asked else [self._come.get()]
        try:
            while True:
                found.append(self._come.get_nowait())
        except Empty:
            return found

    def _next(self, first: _Call) -> list[_Call]:
        """The calls that are made as one now: the one that has waited longest, and those of its kind."""
        rows = 0
        batch: list[_Call] = []
        for call in self._asked:
            if isinstance(call, _Call) and call.kind() == first.kind():
                rows += len(call.x)
                if rows > first.most_rows and batch:
                    break
                batch.append(call)
        taken = set(map(id, batch))
        self._asked = [call for call in self._asked if id(call) not in taken]
        return batch


@torch.no_grad()
def _answer(calls: Sequence[_Call]) -> int:
    """Answers calls of one kind, with one call of the network; where that fails, each by one of its own.

    Returns:
        How often the network was called.
    """
    network = calls[0].network
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
        turns: In which the request is made.
        most_rows: Samples in one shared call at most.
        strict: Whether the calls of this request are never shared, so that it rounds as if it were alone.
    """

    def __init__(self, network: nn.Module, turns: Turns, most_rows: int = 1024, strict: bool = False) -> None:
        super().__init__()
        self.network, self.turns, self.most_rows, self.strict = network, turns, most_rows, strict
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
            return self.turns.ask_alone(self.network, x, noise_level, cond)
        return self.turns.ask(self.network, x, noise_level, cond, self.most_rows)
