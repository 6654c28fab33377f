"""What goes wrong, as clients read it: one line in the shape of OpenAI's errors."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ..errors import (
    Busy,
    Cancelled,
    NoSuchJob,
    SamplingDiverged,
    ToleranceNotMet,
    TookTooLong,
    UnknownName,
    UnnoiseError,
)

LOG = logging.getLogger("unnoise.serving")
CODES = {
    400: "bad_request", 401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "timeout", 409: "not_ready", 410: "cancelled", 413: "too_large", 422: "failed", 429: "busy",
    500: "server_error", 503: "unavailable",
}  # fmt: skip
STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (NoSuchJob, 404), (Busy, 429), (Cancelled, 410), (TookTooLong, 422), (SamplingDiverged, 422),
    (ToleranceNotMet, 422), (UnnoiseError, 400),
)  # fmt: skip


def status_of(error: BaseException) -> int:
    """The HTTP status that says what kind of error this is."""
    if isinstance(error, UnknownName) and str(error).startswith("no model "):
        return 404
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def told(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    line = " ".join(message.split()).encode("utf-8", "backslashreplace").decode()
    return {"error": {"message": line, "type": kind, "param": param, "code": CODES.get(status, "error")}}


def body_of(error: BaseException) -> dict[str, Any]:
    """The body that tells of an error; of one that is no user's, no more than that there was one."""
    status = status_of(error)
    if status == 500:
        return told(500, "something has gone wrong here; the log of the server says what")
    message = str(error)
    name = message.partition(":")[0]
    return told(status, message, name if name.replace("_", "").replace(".", "").isalnum() else None)


def refusal(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An answer that refuses."""
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(told(status, message, param), status, headers)


def fault(scope: Scope, error: BaseException) -> JSONResponse:
    """Logs what went wrong here, and the answer, which says no more than that something did."""
    LOG.error("%s %s has failed", scope["method"], scope["path"], exc_info=error)
    return JSONResponse(body_of(error), 500)


def install(app: FastAPI) -> None:
    """Has all errors of an app told so."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        status = status_of(error)
        if status == 500:
            return fault(request.scope, error)
        headers = {"retry-after": "1"} if status == 429 else None
        return JSONResponse(body_of(error), status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        message, param = _first(error)
        return JSONResponse(told(400, message, param), 400)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.scope['path'][:200]}: /docs lists what there is"
        return JSONResponse(told(error.status_code, detail), error.status_code, error.headers)

    app.add_exception_handler(UnnoiseError, ours)
    app.add_exception_handler(OSError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _first(error: RequestValidationError) -> tuple[str, str | None]:
    """The first of what is wrong with a request, and where."""
    found = error.errors()[0]
    place = [str(part) for part in found["loc"][1:]]
    if found["type"] == "json_invalid":
        return f"the body is no JSON: {found.get('ctx', {}).get('error', found['msg'])}", None
    if not place and isinstance(found.get("input"), bytes):
        return "the body was not read as JSON: send it with the header `content-type: application/json`", None
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "value_error" and not place:
        return message, message.partition(":")[0]
    where = ".".join(place) or "body"
    given = "" if found["type"] == "missing" else f", got {repr(found.get('input'))[:80]}"
    return f"{where}: {message[:1].lower()}{message[1:]}{given}", where
