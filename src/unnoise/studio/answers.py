"""How the studio answers: arrays as numbers that a browser reads at once, and errors as one line that says what to do."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from torch import Tensor

from ..errors import Busy, NoSuchJob, UnknownName, UnnoiseError


def array(values: Tensor) -> dict[str, Any]:
    """A tensor as its shape and the base64 of its values: bytes for pictures, else little-endian float32."""
    kind, cast = ("uint8", values) if str(values.dtype) == "torch.uint8" else ("float32", values.float())
    raw = cast.cpu().contiguous().numpy().astype("<f4" if kind == "float32" else "u1").tobytes()
    return {"shape": list(values.shape), "type": kind, "data": base64.b64encode(raw).decode()}


def owner_of(request: Request) -> str:
    """Whose key a request came with, as what stands before the app has noted; empty where none is needed."""
    return str(request.scope.get("state", {}).get("owner", ""))


def refused(message: str, status: int = 400) -> JSONResponse:
    """One line that says what was expected, what came, and what to do."""
    return JSONResponse({"error": {"message": " ".join(message.split())}}, status)


class PlainRoute(APIRoute):
    """A route whose errors that a person can mend come as one line, status 400; what is not there, 404."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler with the errors caught."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except (UnknownName, NoSuchJob) as error:
                return refused(str(error), 404)
            except Busy as error:
                return refused(str(error), 429)
            except UnnoiseError as error:
                return refused(str(error))
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"] if part != "body")
                return refused(f"{where}: {first['msg'].lower()}")
            except OSError as error:
                what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
                return refused(what, 500)

        return handle
