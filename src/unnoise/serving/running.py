"""A server that runs until it is told to stop, and then finishes what is under way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ..engine.closing import Closing
from ..errors import BadOption
from .settings import ServingSettings


class _Server(uvicorn.Server):
    """Refuses new requests as soon as it is told to stop, tells when it is ready and stops, and hurries when told twice."""

    def __init__(
        self, config: uvicorn.Config, behind: Closing, ready: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._behind, self._ready, self._stopping = behind, ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        told_before = self.should_exit
        self._behind.closing = True
        super().handle_exit(sig, frame)
        # A signal may come in the middle of anything: what takes locks or writes is done outside of its handler.
        if not told_before:
            self._loop.call_soon_threadsafe(self._stopping)
        elif self.force_exit:
            threading.Thread(target=self._behind.hurry, daemon=True).start()
            self._loop.call_soon_threadsafe(self._drop_connections)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn then leaves out what ends the engine, and the trainings of a page
            await self.lifespan.shutdown()

    def _drop_connections(self) -> None:
        for each in list(self.server_state.connections):
            if each.transport is not None:
                each.transport.abort()


def listening(host: str, port: int) -> socket.socket:
    """A socket on an address.

    Args:
        host: An address, or a name of one.
        port: 0 takes one that is free.

    Raises:
        BadOption: There is no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        why = getattr(error, "strerror", None) or str(error)
        raise BadOption(
            f"cannot listen at {host}, port {port} ({why.lower()}): choose another --port or --host"
        ) from None
    return made


def server_of(
    app: ASGIApp,
    behind: Closing,
    settings: ServingSettings,
    ready: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """What serves an app, with `run(sockets=[...])`, until Ctrl-C or SIGTERM.

    What is under way then gets `settings.grace` seconds, and nothing more is accepted; a second Ctrl-C gives it up.

    Args:
        app: What `create` made.
        behind: The engine that it runs on.
        settings: Of the app.
        ready: Called once it listens.
        stopping: Called once it is told to stop.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=15,
        timeout_graceful_shutdown=int(settings.grace) + 2, lifespan="on",
    )  # fmt: skip
    return _Server(config, behind, ready, stopping)
