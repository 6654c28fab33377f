"""The page and what it asks for, as routers of an app: its files come from the package itself, and none from anywhere else."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ..engine.engine import Engine
from ..engine.shelf import NAME
from ..model_folder import MODEL_FILE
from ..recipes.background import BackgroundRuns
from . import denoise, gallery, jobs, noise, steer, train
from . import models as models_room

FOLDER = Path(__file__).parent / "front"
"""Where the files of the page stand."""

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, and pictures that it makes itself."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Args:
        content: Its bytes.
        media: Its media type.
    """

    content: bytes
    media: str

    @cached_property
    def tag(self) -> str:
        """What a browser remembers it by."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:24]}"'

    @cached_property
    def packed(self) -> bytes | None:
        """Its bytes compressed, where that makes them fewer."""
        small = gzip.compress(self.content, 9, mtime=0)
        return small if len(small) < 0.95 * len(self.content) else None


def room_routes(
    engine: Engine,
    *,
    runs: str | Path = "runs",
    models: str | Path = "models",
    data: Sequence[str | Path] = (),
) -> APIRouter:
    """What the rooms of the page ask for, under `/api`.

    Args:
        engine: That makes samples, and has the models.
        runs: Where run folders stand, and new ones are made.
        models: Where models stand that are dropped in.
        data: Folders that data may be read from, beside the one that the process was started in.

    Returns:
        The router. When its app shuts down, trainings that were begun on the page save and end, to be resumed.
    """
    background = BackgroundRuns(runs)
    roots = [Path.cwd(), *(Path(each).expanduser() for each in data)]

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(background.close, lambda: engine.hurried)

    api = APIRouter(prefix="/api", include_in_schema=False, lifespan=lifespan)
    for room in (
        noise.routes(),
        jobs.routes(engine),
        denoise.routes(engine),
        steer.routes(engine),
        train.routes(background, engine, roots),
        gallery.routes(engine),
        models_room.routes(engine, Path(models)),
    ):
        api.include_router(room)
    return api


def shelved(runs: str | Path, models: str | Path) -> dict[str, str]:
    """The models that stand in the folders of runs and of models, by their names.

    Args:
        runs: Where run folders stand.
        models: Where model folders stand.
    """
    found: dict[str, str] = {}
    for folder, inner in ((Path(runs), "model"), (Path(models), "")):
        for each in sorted(folder.iterdir()) if folder.is_dir() else ():
            if NAME.fullmatch(each.name) and (each / inner / MODEL_FILE).is_file():
                found.setdefault(each.name, str(each))
    return found


def page_files() -> dict[str, PageFile]:
    """The files of the page by their path from its root; nothing else is ever served, whatever a path looks like."""
    return {
        path.relative_to(FOLDER).as_posix(): PageFile(path.read_bytes(), MEDIA[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in MEDIA
    }


def page_routes() -> APIRouter:
    """A route for every file of the page; `/` is index.html."""
    router = APIRouter(include_in_schema=False)
    for name, file in page_files().items():
        router.add_api_route(f"/{name}", _serve(file), methods=["GET"])
        if name == "index.html":
            router.add_api_route("/", _serve(file), methods=["GET"])
    return router


def _serve(file: PageFile) -> Callable[[Request], Response]:
    def serve(request: Request) -> Response:
        headers = {
            "etag": file.tag,
            "cache-control": "no-cache",
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "vary": "accept-encoding",
        }
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        content = file.content
        if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["content-encoding"] = file.packed, "gzip"
        return Response(content, media_type=file.media, headers=headers)

    return serve
