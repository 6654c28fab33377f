"""Requests of the engine, followed from asyncio; and the frames of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse

from ..engine.engine import Engine
from ..engine.job import Job
from ..errors import BadOption

OFTEN = 0.03
"""Seconds between two events of a stream at least: what happens in between is told by the next one."""
QUIET = 15.0
"""Seconds after which a stream says that it is still there."""


class Following:
    """For as long as this lasts, `changed` and `ended` can be awaited.

    Args:
        job: What is followed.
        note: Called in the thread of the work after everything that happens.
    """

    def __init__(self, job: Job, note: Callable[[], None] | None = None) -> None:
        self.job, self._note = job, note
        self._event = asyncio.Event()
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Following:
        loop = asyncio.get_running_loop()
        waiting = False

        def heard() -> None:
            nonlocal waiting
            waiting = False
            self._event.set()
            if self.job.ended:
                self._ended.set()

        def tell() -> None:
            nonlocal waiting
            if self._note is not None:
                self._note()
            if not waiting:
                waiting = True
                with suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(heard)

        self._stop = self.job.watch(tell)
        heard()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def changed(self, seconds: float) -> bool:
        """Whether something happens within this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
                self._event.clear()
                return True
        return False

    async def ended(self, request: Request) -> bool:
        """Waits for the end; False, and the work is cancelled, where the client leaves before."""
        while not self._ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._ended.wait()
            if not self._ended.is_set() and await request.is_disconnected():
                self.job.cancel()
                return False
        return True


def event(kind: str, data: Any, number: int | None = None) -> str:
    """One server-sent event."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """An answer that is a stream of events."""
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def model_named(engine: Engine, name: str | None) -> str:
    """The name of the model that is asked; of the only one where none is said.

    Raises:
        UnknownName: There is none of this name.
        BadOption: There are several, and none is said.
    """
    if name is not None:
        engine.shelf.place(name)
        return name
    names = engine.shelf.names()
    if len(names) != 1:
        raise BadOption(f"model: say which one (known: {', '.join(names) or 'none'})")
    return names[0]
