"""Requests of the engine, followed from asyncio; and the frames of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
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
LEFT_YET = 0.5
"""Seconds after which one looks again whether a client that waits has left."""


class Following:
    """For as long as this lasts, `changed` can be awaited.

    Args:
        job: What is followed.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._event = asyncio.Event()

    async def __aenter__(self) -> Following:
        loop = asyncio.get_running_loop()
        waiting = False

        def heard() -> None:
            nonlocal waiting
            waiting = False
            self._event.set()

        def tell() -> None:
            nonlocal waiting
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


async def ended(job: Job, request: Request) -> bool:
    """Waits for the end of a job, of whose steps it hears nothing; False, and the job is cancelled, where the client leaves before.

    Args:
        job: What is waited for.
        request: Of the client.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        if job.ended:
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(over.set)

    stop = job.watch(tell)
    try:
        tell()  # it may have ended before
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LEFT_YET):
                    await over.wait()
            if not over.is_set() and await request.is_disconnected():
                job.cancel()
                return False
        return True
    finally:
        stop()


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
