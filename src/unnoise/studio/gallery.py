"""The room Gallery: everything that was made, with its recipe."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.requests import Request as HttpRequest

from ..engine.engine import Engine
from ..engine.request import ASKED, Request
from ..errors import BadOption, DataError, NoSuchJob, nearest
from ..samples import SUFFIXES
from .answers import PlainRoute, owner_of

MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".apng": "image/apng",
    ".csv": "text/csv; charset=utf-8",
}


def routes(engine: Engine) -> APIRouter:
    """List, look, download, replay, delete."""
    router = APIRouter(prefix="/gallery", route_class=PlainRoute)
    known: dict[str, bool] = {}

    def shown(number: str) -> bool:
        """Whether a result is shown: it is whole, and a person asked for it; it never changes, so it is read once."""
        if number not in known:
            try:
                known[number] = engine.results.facts(number).get("listed", True)
            except (DataError, NoSuchJob):
                known[number] = False
        return known[number]

    @router.get("")
    def made(most: Annotated[int, Query(ge=1, le=500)] = 60) -> dict[str, Any]:
        """The newest results, and how many there are."""
        numbers = [number for number in engine.results.numbers() if shown(number)]
        return {"results": [engine.results.facts(number) for number in numbers[:most]], "count": len(numbers)}

    @router.get("/{number}/samples{suffix}")
    def file(number: str, suffix: str) -> Response:
        """What was made, in a file that carries its recipe: .png .jpg .webp .gif .apng .npz .csv .safetensors."""
        if suffix not in SUFFIXES:
            raise BadOption(f"{suffix!r} is no suffix that samples are written with{nearest(suffix, SUFFIXES)}")
        samples = engine.results.samples(number, frames=suffix in (".gif", ".apng"))
        headers = {
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": f'inline; filename="{number}{suffix}"',
        }
        content = samples.encode(suffix)
        return Response(content, media_type=MEDIA.get(suffix, "application/octet-stream"), headers=headers)

    @router.post("/{number}/replay")
    def replay(number: str, again: HttpRequest) -> dict[str, Any]:
        """Makes it again from its recipe."""
        facts = engine.results.facts(number)
        asked = {name: facts["recipe"][name] for name in ASKED if name in facts["recipe"]}
        kept = {"strict": bool(facts.get("strict")), "keep_steps": bool(facts.get("keep_steps"))}
        return engine.submit(Request.of({"model": facts["model"], **asked, **kept, "owner": owner_of(again)})).facts()

    @router.delete("/{number}")
    def delete(number: str) -> dict[str, Any]:
        """Deletes it for good."""
        engine.results.delete(number)
        return {"deleted": number}

    return router
