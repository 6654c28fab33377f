"""What stands before several replicas, so that they look like one server: it shares out requests, and joins what each knows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..engine.closing import Closing
from ..engine.results import NUMBER, Results
from ..errors import NoSuchJob
from . import merging
from .about import FIGURES_TYPE, Answers
from .app import is_open
from .guard import Guard, quiet
from .members import Gone, Member
from .refusing import refusal
from .settings import ServingSettings

LOG = logging.getLogger("unnoise.serving")
REPLICA = b"x-unnoise-replica"
"""The header that says which replica has answered."""
ENDING = ("/cancel", "/interrupt", "/options")
"""How the paths end of what is no new work."""
HOMES = 20_000
"""Of how many jobs it is remembered which replica has accepted them; of others, all replicas are asked."""


class Front(Closing):
    """The app.

    A job lives in the replica that accepted it, and so do the choices of the web UI's users: whatever is asked of them goes there.
    What was made stands in a folder that all replicas read. Everything else goes where the fewest requests are.

    Args:
        members: The replicas.
        results: Where all of them keep what they make.
        settings: What clients may do.
    """

    def __init__(self, members: Sequence[Member], results: Results, settings: ServingSettings) -> None:
        self.members, self.results, self.settings = list(members), results, settings
        self.answers = Answers()
        """What was answered here, and by no replica."""
        self._homes: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._turns = 0
        for member in self.members:
            member.at_death = self._hand_over
        self._guarded: ASGIApp = Guard(self._answer, settings, is_open, self._count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._guarded(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _count(self, scope: Scope, status: int) -> None:
        if "replica" not in scope.get("state", {}):
            self.answers(scope, status)

    # Living

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._watching():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.closing = True
            closing = asyncio.gather(*(self._close(each) for each in self.members if each.up))
            while not (closing.done() or self.hurried):  # the processes end with this one, whatever they do
                await asyncio.wait([closing], timeout=0.1)
            closing.cancel()
            with suppress(asyncio.CancelledError):
                await closing
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each.watch()) for each in self.members]
        try:
            while not all(each.up for each in self.members):
                await asyncio.sleep(0.02)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, member: Member) -> None:
        try:
            await member.call("close", self.left(self.settings.grace))
        except Gone:  # what it had accepted is made after the next start
            LOG.error("replica %d has ended before it was asked to", member.place)

    async def _hand_over(self, dead: Member) -> None:
        """Has another replica take up what a dead one has left."""
        for member in self._by_load():
            try:
                await member.call("take_up")
                return
            except Gone:
                continue

    # Answering

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _whole_body(receive)
        except HTTPException as error:
            await refusal(error.status_code, str(error.detail))(scope, receive, send)
            return
        if body is None:  # the client has left
            return
        own = self._own(scope)
        if own is not None:
            scope["route"] = SimpleNamespace(path=scope["path"])
            await (await own)(scope, receive, send)
            return
        await self._pass_on(scope, body, receive, send)

    def _own(self, scope: Scope) -> Any:
        """The work of answering what concerns all replicas, or none of them."""
        method, path = scope["method"], scope["path"]
        if self.closing and method == "POST" and not path.endswith(ENDING):
            return self._refuse()
        if method == "GET":
            return {"/health": self._health, "/metrics": self._metrics, "/v1/jobs": self._jobs}.get(
                path, lambda scope: None
            )(scope)
        return None

    async def _refuse(self) -> ASGIApp:
        return refusal(429, "the server is shutting down: ask again when it is back")

    async def _health(self, scope: Scope) -> ASGIApp:
        up = [each for each in self.members if each.up]
        replicas = [
            {"replica": each.place, "up": each.up, "waiting": each.health.waiting, "active": each.health.active}
            for each in self.members
        ]
        told = {
            "status": "closing" if self.closing else "ok" if up else "starting",
            "version": __version__,
            "waiting": sum(each.health.waiting for each in up),
            "active": sum(each.health.active for each in up),
            "replicas": replicas,
        }
        return JSONResponse(told, 200 if up and not self.closing else 503)

    async def _metrics(self, scope: Scope) -> ASGIApp:
        texts = {place: body.decode() for place, (_, _, body) in (await self._all(scope)).items()}
        up = sum(each.up for each in self.members)
        own = [
            f"# HELP unnoise_replicas_up Replicas that are there.\n# TYPE unnoise_replicas_up gauge\nunnoise_replicas_up {up}"
        ]
        return PlainTextResponse(
            merging.figures({**texts, "front": "\n".join([*own, *self.answers.lines()])}), media_type=FIGURES_TYPE
        )

    async def _jobs(self, scope: Scope) -> ASGIApp:
        told = await self._all(scope)
        wrong = next(((status, head, body) for status, head, body in told.values() if status != 200), None)
        if wrong is not None:
            return _Ready(*wrong)
        if not told:
            return _nobody()
        most = int(parse_qs(scope["query_string"].decode("latin-1")).get("limit", ["100"])[-1])
        lists = [json.loads(body)["data"] for _, _, body in told.values()]
        return JSONResponse({"object": "list", "data": merging.jobs(lists, most)})

    async def _all(self, scope: Scope) -> dict[str, tuple[int, list[tuple[bytes, bytes]], bytes]]:
        """What each replica that is there answers, by its number."""
        up = [each for each in self.members if each.up]
        told = await asyncio.gather(*(each.whole(scope) for each in up), return_exceptions=True)
        found = {}
        for member, answer in zip(up, told, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, Gone):
                    raise answer
                continue
            found[str(member.place)] = answer
        return found

    async def _pass_on(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Has a replica answer; where its process ends before it has said anything, what changes nothing is asked of another."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                scope["state"]["replica"] = member.place
                self._remember(member, message)
                message = {**message, "headers": [*message["headers"], (REPLICA, str(member.place).encode())]}
            await send(message)

        for _ in range(2):
            chosen = await self._choose(scope)
            if chosen is None:
                break
            member = chosen
            try:
                await member.answer(scope, body, receive, noted)
                return
            except Gone as error:
                if begun:  # an answer that has no end is how a client is told
                    LOG.error("%s %s was broken off: %s", scope["method"], quiet(scope["path"]), error)
                    return
                if scope["method"] not in ("GET", "HEAD"):
                    break
        await _nobody()(scope, receive, send)

    # Choosing

    async def _choose(self, scope: Scope) -> Member | None:
        """The replica for a request; None where there is none now."""
        path = scope["path"]
        if path.startswith("/sdapi/v1/"):
            return self._by_owner(scope["state"]["owner"])
        named = path.removeprefix("/v1/jobs/").partition("/")[0] if path.startswith("/v1/jobs/") else ""
        if NUMBER.fullmatch(named):
            home = await self._home(named)
            if home is not None:
                return home
            if not self._is_made(named) and not all(each.up for each in self.members):
                return None  # whoever takes the place of one that has ended may know of it
        return next(iter(self._by_load()), None)

    def _by_load(self) -> list[Member]:
        """Those that are there, the one with the fewest requests first; among equal ones in turn."""
        found = sorted((each for each in self.members if each.up), key=lambda each: (each.load, each.turn))
        if found:
            self._turns += 1
            found[0].turn = self._turns
        return found

    def _by_owner(self, owner: str) -> Member | None:
        """The one that keeps what an owner has chosen: always the same while it is there."""
        rank = lambda each: hashlib.sha256(f"{each.place} {owner}".encode()).digest()
        return min((each for each in self.members if each.up), key=rank, default=None)

    async def _home(self, number: str) -> Member | None:
        """The replica whose engine knows a job; None if it is at most among the results."""
        place, instance = self._homes.get(number, (0, ""))
        known = self.members[place]
        if instance and known.up and known.health.instance == instance:
            return known
        self._homes.pop(number, None)
        if self._is_made(number):
            return None
        up = [each for each in self.members if each.up]
        held = await asyncio.gather(*(each.call("holds", number) for each in up), return_exceptions=True)
        for member, holds in zip(up, held, strict=True):
            if holds is True:
                self._note_home(number, member)
                return member
        return None

    def _is_made(self, number: str) -> bool:
        try:
            return self.results.place(number).is_dir()
        except (NoSuchJob, OSError):
            return False

    def _remember(self, member: Member, start: Message) -> None:
        """Notes where a job lives that was just accepted."""
        if start["status"] == 202:
            place = dict(start["headers"]).get(b"location", b"").decode("latin-1")
            self._note_home(place.rpartition("/")[2], member)

    def _note_home(self, number: str, member: Member) -> None:
        self._homes[number] = member.place, member.health.instance
        while len(self._homes) > HOMES:
            self._homes.popitem(last=False)


class _Ready:
    """An answer that a replica has given, as it is."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._start = {"type": "http.response.start", "status": status, "headers": headers}
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)
        await send(self._body)


def _nobody() -> JSONResponse:
    return refusal(503, "the replica that this is for has ended, and a new one starts: ask again in a few seconds")


async def _whole_body(receive: Receive) -> bytes | None:
    """The body of a request; None if the client leaves before it has come."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            return bytes(body)
