"""Who may ask, how often, and how much: looked at before any route."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import threading
from collections.abc import Callable
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusing import fault, refusal
from .settings import ServingSettings

LOG = logging.getLogger("unnoise.serving")
MOST_TOLD = 10_000
"""Bytes of an answer that refuses, in which its reason is looked for."""


class Buckets:
    """How often each owner may still ask: a bucket that fills by `rate` a minute, up to as many.

    Args:
        rate: Requests a minute; 0 for any number.
        clock: Tells seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> bool:
        """Whether the owner may ask once more now."""
        if not self.rate:
            return True
        with self._lock:
            now = self._clock()
            left, since = self._left.get(owner, (float(self.rate), now))
            left = min(self.rate, left + (now - since) * self.rate / 60)
            self._left[owner] = (left - 1 if left >= 1 else left, now)
            return left >= 1


class Guard:
    """What stands before an app.

    Args:
        app: Behind it.
        settings: What clients may do.
        is_open: Whether a path needs no key.
        count: Told the method, the path and the status of every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServingSettings,
        is_open: Callable[[Scope], bool],
        count: Callable[[Scope, int], None],
    ) -> None:
        self.app, self.settings, self.is_open, self.count = app, settings, is_open, count
        self.buckets = Buckets(settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, told = 0, b""

        async def noted(message: Message) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400 and len(told) < MOST_TOLD:
                told += message.get("body", b"")
            await send(message)

        refused = self._refused(scope)
        try:
            if refused is not None:
                await refused(scope, receive, noted)
            else:
                await self.app(scope, self._limited(receive), noted)
        except Exception as error:
            answer = fault(scope, error)
            if status:  # it has begun, and cannot be taken back
                raise
            await answer(scope, receive, noted)
        finally:
            self.count(scope, status)
            if status >= 400:
                owner = scope.get("state", {}).get("owner", "")
                told_of = f"{quiet(scope['path'])} -> {status} {owner}".rstrip()
                LOG.warning("%s %s%s", scope["method"], told_of, _reason(told))

    def _refused(self, scope: Scope) -> ASGIApp | None:
        """What refuses this request, if anything does."""
        headers, settings = Headers(scope=scope), self.settings
        host = _name_of(headers.get("host", ""))
        if "*" not in settings.hosts and host not in settings.hosts:
            return refusal(403, f"this server is not called {host[:60]!r}: allow it with --allow-host")
        origin = headers.get("origin")
        if (
            origin
            and scope["method"] not in ("GET", "HEAD", "OPTIONS")
            and urlsplit(origin).netloc != headers.get("host")
        ):
            return refusal(403, "a page of another site may not ask this server")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or int(length[:19]) > settings.most_bytes:
            return refusal(413, self._too_large())
        scope.setdefault("state", {})["owner"] = ""
        if self.is_open(scope):
            return None
        if settings.keys:
            key = _key(headers.get("authorization", ""))
            owner = settings.owner(key) if key else None
            if owner is None:
                return refusal(401, "an API key is needed: send it as `Authorization: Bearer KEY`")
            scope["state"]["owner"] = owner
        if scope["method"] == "POST" and not self.buckets.take(scope["state"]["owner"]):
            return refusal(429, f"more than {settings.rate} requests a minute: ask again later")
        return None

    def _too_large(self) -> str:
        return f"a request may have {self.settings.most_bytes:,} bytes, and this one has more"

    def _limited(self, receive: Receive) -> Receive:
        """The body up to the limit, within the time for it."""
        seen, whole = 0, False
        until = asyncio.get_running_loop().time() + self.settings.body_seconds

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:  # what is awaited now is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                late = f"the body did not come within {self.settings.body_seconds:g} seconds"
                raise HTTPException(408, late) from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self.settings.most_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited


def owner_of(request: Request) -> str:
    """Whose key a request came with; empty where none is needed."""
    return str(request.scope.get("state", {}).get("owner", ""))


def _reason(body: bytes) -> str:
    """The one line of an answer that refuses, as it may stand in a log; empty where it has none."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return ": " + "".join(each if each.isprintable() else repr(each)[1:-1] for each in message[:500])


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host)
    return (found[1] or found[2] or "").lower() if found else host


def _key(header: str) -> str:
    """The key in an Authorization header: a bearer's, or the password of a name."""
    kind, _, value = header.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def quiet(path: str) -> str:
    """A path as it may stand in a log."""
    return repr(path[:200])[1:-1]
