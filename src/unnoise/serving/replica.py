"""One of several processes that serve the same models: an engine and its app, asked by calls instead of a socket."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import deque
from dataclasses import dataclass, replace

import torch
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Scope

from ..engine.shelf import half_of_memory
from ..errors import NoSuchJob
from ..precision import keep_freed_memory
from .app import create
from .setup import Setup

AHEAD = 16
"""Messages of an answer that wait to be fetched at most: an app that says more waits, as it does for a slow socket."""
WATCHED = 1.0
"""Seconds that a look at a replica takes where nothing happens."""


@dataclass(frozen=True)
class Word:
    """What a replica says to a call.

    Args:
        messages: The next ones of an answer, as ASGI has them.
        end: Whether there are no more.
        broken: Whether the app has failed in the middle of the answer.
        load: Requests that its engine works on or keeps waiting.
    """

    messages: list[Message]
    end: bool
    broken: bool
    load: int


@dataclass(frozen=True)
class Health:
    """How a replica is.

    Args:
        instance: Another one for every process that has been this replica.
        waiting: Requests that wait.
        active: Requests that are worked on.
        log: What has gone wrong since the last look, for the log of the server.
    """

    instance: str
    waiting: int
    active: int
    log: list[str]


class Replica:
    """What runs in each process.

    Args:
        setup: Of the server.
        folder: That its paths are relative to.
        threads: Of torch.
        share: How many replicas share the memory of this one's device.
    """

    def __init__(self, setup: Setup, folder: str, threads: int, share: int) -> None:
        os.chdir(folder)
        keep_freed_memory()
        torch.set_num_threads(threads)
        if setup.memory is None:
            setup = replace(setup, memory=half_of_memory() // share)
        self.instance = secrets.token_hex(8)
        self._log = _Kept()
        logging.getLogger("unnoise").addHandler(self._log)
        self.engine = setup.begin()
        # How often one may ask is counted where all requests pass.
        self.app: ASGIApp = create(self.engine, replace(setup.serving, rate=0))
        self._exchanges: dict[str, _Exchange] = {}

    async def begin(self, exchange: str, scope: Scope, body: bytes) -> Word:
        """Has a request answered; tells the first messages.

        Args:
            exchange: What the answer is called in the calls that follow.
            scope: Of ASGI, without what cannot leave its process.
            body: All of it.
        """
        self._exchanges[exchange] = _Exchange(self.app, scope, body)
        return await self.more(exchange)

    async def more(self, exchange: str) -> Word:
        """The next messages of an answer, as soon as there is one; it is broken off where this process has not begun it."""
        found = self._exchanges.get(exchange)
        messages, end, broken = ([], True, True) if found is None else await found.more()
        if end:
            self._exchanges.pop(exchange, None)
        return Word(messages, end, broken, self.engine.waiting() + self.engine.active())

    async def leave(self, exchange: str) -> None:
        """Tells the app that whom it answers has left."""
        found = self._exchanges.pop(exchange, None)
        if found is not None:
            found.leave()

    async def holds(self, number: str) -> bool:
        """Whether the engine knows a request, beside what it has made."""
        try:
            self.engine.job(number)
        except NoSuchJob:
            return False
        return True

    async def look(self, wait: float = WATCHED) -> Health:
        """How it is, after this many seconds: to call it all the time is to hear at once that the process has ended."""
        await asyncio.sleep(wait)
        return Health(self.instance, self.engine.waiting(), self.engine.active(), self._log.taken())

    async def take_up(self) -> None:
        """Accepts what a replica that is no more has left."""
        await run_in_threadpool(self.engine.take_up)

    async def close(self, grace: float) -> None:
        """Accepts nothing more, and finishes what is under way; see `Engine.close`."""
        await run_in_threadpool(self.engine.close, grace)


class _Exchange:
    """A request that an app answers, and its answer as far as it has not been fetched."""

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes) -> None:
        self._app, self._scope, self._body = app, scope, body
        self._ready: asyncio.Queue[Message | None] = asyncio.Queue(AHEAD)
        self._asked, self._left, self._broken = False, asyncio.Event(), False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def more(self) -> tuple[list[Message], bool, bool]:
        """The messages that there are, at least one; whether there are no more; whether the app has failed."""
        found = [await self._ready.get()]
        while not self._ready.empty():
            found.append(self._ready.get_nowait())
        end = found[-1] is None
        return [each for each in found if each is not None], end, end and self._broken

    def leave(self) -> None:
        self._left.set()
        while not self._ready.empty():  # who waits for room goes on, and finds that nobody listens
            self._ready.get_nowait()
        self._ready.put_nowait(None)  # for a call that still waits

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:  # the app has logged it, and what it has begun to say cannot be taken back
            self._broken = True
        finally:
            if not self._left.is_set():
                await self._ready.put(None)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            await self._ready.put(message)


class _Kept(logging.Handler):
    """Keeps what has gone wrong until it is asked for."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: deque[str] = deque(maxlen=100)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def taken(self) -> list[str]:
        found: list[str] = []
        while self._lines:
            found.append(self._lines.popleft())
        return found
