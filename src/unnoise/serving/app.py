"""The app: an engine behind HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import Scope

from .. import __version__
from ..engine.engine import Engine
from . import about, edits, images, jobs, refusing, sdapi
from .guard import Guard
from .settings import ServingSettings

OPEN = ("/health", "/docs", "/openapi.json", "/docs/oauth2-redirect")
DOCUMENTS = "/documents"
"""Where the scripts of `/docs` stand, which a browser would otherwise fetch from another machine."""
ABOUT = """Samples of diffusion models. Every image carries the recipe that it was made by; `unnoise replay` makes it again.

Wrong requests are answered with one line: `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`.
"""


def create(
    engine: Engine,
    settings: ServingSettings | None = None,
    *,
    routers: Sequence[APIRouter] = (),
    open_routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The app of an engine, which is closed with it.

    Args:
        engine: Runs all requests.
        settings: What clients may do.
        routers: More routes, which need a key where the others do.
        open_routers: More routes that need none, such as those of a page.
    """
    settings = ServingSettings() if settings is None else settings
    answers = about.Answers()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close, settings.grace)

    app = FastAPIOffline(
        redoc_url=None, static_url=DOCUMENTS, title="unnoise", version=__version__, description=ABOUT, lifespan=lifespan
    )
    refusing.install(app)
    for router in (
        images.router(engine),
        edits.router(engine, settings),
        jobs.router(engine),
        about.router(engine, answers),
        sdapi.router(engine),
        *routers,
    ):
        app.include_router(router)
    free = APIRouter()
    for router in open_routers:
        free.include_router(router)
    app.include_router(free)
    if not any(getattr(route, "path", None) == "/" for route in app.routes):
        app.add_api_route("/", _to_the_documents, include_in_schema=False)

    def opened(scope: Scope) -> bool:
        return is_open(scope) or any(route.matches(scope)[0] == Match.FULL for route in free.routes)

    app.add_middleware(Guard, settings=settings, is_open=opened, count=answers)
    return app


def is_open(scope: Scope) -> bool:
    """Whether a path needs no key in any app."""
    return scope["path"] in (*OPEN, "/") or scope["path"].startswith(f"{DOCUMENTS}/")


def _to_the_documents() -> RedirectResponse:
    return RedirectResponse("docs")
