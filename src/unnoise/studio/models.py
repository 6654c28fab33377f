"""The room Models: what stands on the shelf, what it takes of the memory, and folders that a person drops in."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from ..engine.engine import Engine
from ..engine.shelf import NAME
from ..errors import BadOption, UnnoiseError
from ..model import Model
from .answers import PlainRoute

FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(safetensors|yaml|json|txt)")
"""What may stand in a model's folder: descriptions, weights, and the words of a tokenizer; nothing that runs."""
MOST_CHUNK = 4 * 1024 * 1024
MOST_WHOLE = 64 * 1024**3
"""Bytes of a file."""


def routes(engine: Engine, folder: Path) -> APIRouter:
    """What the room asks for.

    Args:
        engine: Whose shelf is shown.
        folder: Where models stand that were dropped in.
    """
    router = APIRouter(prefix="/models", route_class=PlainRoute)
    lock = threading.Lock()

    @router.get("")
    def cards() -> dict[str, Any]:
        """All models, and the memory that they may take and take."""
        found = [_plain(asdict(card)) for card in engine.shelf.cards()]
        return {"models": found, "memory": engine.shelf.memory, "loaded": engine.shelf.loaded()}

    @router.get("/{name}/description")
    def description(name: str) -> dict[str, Any]:
        """All that a model says of itself; it is loaded for that."""
        with engine.shelf.borrow(name) as model:
            return {
                **_plain(model.describe()),
                "parameters": model.parameters(),
                "hash": model.hash,
                "notes": model.notes,
            }

    @router.put("/{name}/files/{file}")
    async def take(name: str, file: str, request: Request, at: Annotated[int, Query(ge=0, le=MOST_WHOLE)] = 0) -> Any:
        """A part of a file of a model that is dropped in; the parts come in order, from `at` on."""
        place = _partial(folder, name)
        if not FILE.fullmatch(file):
            raise BadOption(f"{file!r} does not belong to a model folder: model.yaml and .safetensors files do")
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MOST_CHUNK:
                raise BadOption(f"{file}: send parts of at most {MOST_CHUNK // 2**20} MB")
        return await run_in_threadpool(_append, place / file, at, bytes(content))

    @router.post("/{name}/whole")
    def whole(name: str) -> dict[str, Any]:
        """All files of a model are there: it is looked at, and put on the shelf if it is whole."""
        partial, place = _partial(folder, name), folder / name
        with lock:
            if name in engine.shelf.names() or place.exists():
                shutil.rmtree(partial, ignore_errors=True)
                raise BadOption(f"there is a model {name} already: give the folder another name")
            try:
                Model.load(partial)
                partial.rename(place)
                engine.shelf.add(place, name)
            except UnnoiseError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise type(error)(str(error).replace(str(partial), name)) from None
        return {"added": name}

    @router.delete("/{name}")
    def remove(name: str) -> dict[str, Any]:
        """Takes a model off the shelf; its folder stays."""
        engine.shelf.remove(name)
        return {"removed": name}

    return router


def _partial(folder: Path, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise BadOption(f"{name!r} is no name for a model: letters, digits and . _ - do, up to 100")
    return folder / f".{name}.partial"


def _append(file: Path, at: int, content: bytes) -> dict[str, Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    there = file.stat().st_size if file.exists() else 0
    if at == 0:
        there = 0
    if at != there:
        raise BadOption(f"{file.name}: expected the part from byte {there} on, got the one from {at}")
    with file.open("ab" if at else "wb") as opened:
        opened.write(content)
    return {"file": file.name, "bytes": at + len(content)}


def _plain(value: Any) -> Any:
    """Plain values that JSON can hold: no infinities, and nothing but lists, names and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
