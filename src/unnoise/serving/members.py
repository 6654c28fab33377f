"""Replicas as they are seen by what shares out requests among them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from .replica import WATCHED, Health, Word

LOG = logging.getLogger("unnoise.serving")
CARRIED = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server",
)  # fmt: skip
"""What of a request's scope a replica is told; the rest are things of this process."""


class Gone(Exception):
    """There is no answer, or no more of it; nearly always since the process of a replica has ended, which will be replaced."""


class Line(ABC):
    """Calls to one replica."""

    @abstractmethod
    async def call(self, method: str, *arguments: Any) -> Any:
        """What a method of `Replica` returns; where its process is being replaced, this waits for the new one.

        Raises:
            Gone: The process has ended before it said anything.
        """


class Member:
    """One replica.

    Args:
        place: Its number, which the process that replaces it has, too.
        line: To it.
    """

    def __init__(self, place: int, line: Line) -> None:
        self.place, self._line = place, line
        self.up = False
        """Whether its process is there."""
        self.health = Health("", 0, 0, [])
        self.turn = 0
        """When it was last chosen; the lower, the longer ago."""
        self.at_death: Callable[[Member], Awaitable[None]] | None = None
        self._told = self._unanswered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def load(self) -> int:
        """Requests that its engine has, and such as are on the way to it."""
        return self._told + self._unanswered

    async def call(self, method: str, *arguments: Any) -> Any:
        """See `Line.call`."""
        try:
            return await self._line.call(method, *arguments)
        except Gone:
            self._mourn()
            raise

    async def look(self, wait: float = 0.0) -> None:
        """Learns how it is, after this many seconds.

        Raises:
            Gone: The process has ended meanwhile.
        """
        self.health = await self.call("look", wait)
        self._told = self.health.waiting + self.health.active
        self.up = True
        for text in self.health.log:
            LOG.error("replica %d: %s", self.place, text)

    async def watch(self) -> None:
        """Looks at it all the time, so that it is known at once when its process has ended, and when there is a new one."""
        while True:
            try:
                await self.look(WATCHED if self.up else 0.0)
            except Gone:
                await asyncio.sleep(0.1)
            except Exception as error:  # nobody else looks after it
                LOG.error("replica %d cannot be looked at", self.place, exc_info=error)
                await asyncio.sleep(WATCHED)

    async def answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Has it answer a request.

        Args:
            scope: Of ASGI.
            body: All of it.
            receive: Tells when the client leaves.
            send: Given the messages of the answer.

        Raises:
            Gone: The process has ended before the answer has, or the app has failed in the middle of it.
        """
        exchange, left = secrets.token_hex(8), asyncio.create_task(_left(receive))
        told = {key: scope[key] for key in CARRIED if key in scope}
        call: asyncio.Task[Word] = asyncio.create_task(self.call("begin", exchange, told, body))
        self._unanswered += 1
        call.add_done_callback(self._note_answer)
        ended = False
        try:
            while not ended:
                await asyncio.wait({call, left}, return_when=asyncio.FIRST_COMPLETED)
                if not call.done():  # the client has left
                    return
                word = call.result()
                ended, self._told = word.end, word.load
                for message in word.messages:
                    await send(message)
                if not ended:
                    call = asyncio.create_task(self.call("more", exchange))
            if word.broken:
                raise Gone(f"replica {self.place} has failed in the middle of an answer")
        except Gone:
            ended = True
            raise
        finally:
            left.cancel()
            if not ended:
                self._spawn(self._leave(exchange, call))

    async def whole(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Its answer to a request without a body: status, headers and body.

        Raises:
            Gone: The process has ended before the answer has.
        """
        status, headers, body = 500, [], bytearray()

        async def stays() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def collect(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            else:
                body.extend(message.get("body", b""))

        await self.answer(scope, b"", stays, collect)
        return status, headers, bytes(body)

    def _note_answer(self, call: asyncio.Task[Word]) -> None:
        self._unanswered -= 1

    async def _leave(self, exchange: str, call: asyncio.Task[Word]) -> None:
        """Tells it that the client has left, whether or not it has heard of it already."""
        with suppress(Gone):
            await self.call("leave", exchange)
            if not (await call).end:
                await self.call("leave", exchange)

    def _mourn(self) -> None:
        if self.up:
            self.up, self._told = False, 0
            LOG.error("the process of replica %d has ended; a new one is started", self.place)
            if self.at_death is not None:
                self._spawn(self.at_death(self))

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)  # asyncio itself keeps none
        task.add_done_callback(self._tasks.discard)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
