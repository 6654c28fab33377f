"""`/v1/jobs`: submit, watch, cancel, and take what was made, in any format."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from ..engine.engine import Engine
from ..engine.job import ENDS, Job
from ..errors import BadOption, DataError, NoSuchJob
from .following import OFTEN, QUIET, Following, event, model_named, stream
from .guard import owner_of
from .images import picture_of
from .refusing import body_of, refusal
from .schemas import JobAsked

Number = Annotated[str, Path(description="the id of the job", examples=["20261126-101500-123-0a1b2c3d"])]
PREVIEWS_TAKE = 0.025
"""Of the time of who watches a job, so much goes into pictures at most."""
MEDIA = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "apng": "image/apng", "npz": "application/octet-stream", "csv": "text/csv", "safetensors": "application/octet-stream",
}  # fmt: skip
Format = Literal["png", "jpg", "jpeg", "webp", "gif", "apng", "npz", "csv", "safetensors"]


class Jobs:
    """The jobs of an engine that an owner may see: the own ones.

    Args:
        engine: That runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def running(self, number: str, owner: str) -> Job | None:
        """A job that the engine still knows; None if it stands among the results at most.

        Raises:
            NoSuchJob: It is another owner's.
        """
        try:
            job = self.engine.job(number)
        except NoSuchJob:
            return None
        if job.request.owner != owner:
            raise NoSuchJob(f"no request has the number {number[:60]!r}")
        return job

    def facts(self, number: str, owner: str) -> dict[str, Any]:
        """All that is known of a job.

        Raises:
            NoSuchJob: There is none, or it is another owner's.
            DataError: Its file is damaged.
        """
        job = self.running(number, owner)
        if job is not None:
            return job.facts()
        facts = self.engine.results.facts(number)
        if facts.get("owner", "") != owner:
            raise NoSuchJob(f"no request has the number {number[:60]!r}")
        return facts

    def check_done(self, number: str, owner: str) -> dict[str, Any]:
        """The facts of a job that is done.

        Raises:
            UnnoiseError: It has ended otherwise; this says how.
            NotReady: It has not ended.
        """
        facts = self.facts(number, owner)
        if facts["state"] not in ENDS:
            raise NotReady(f"the request is {facts['state']}: wait for its end, at /v1/jobs/{number}/events")
        job = self.running(number, owner)
        if job is not None and job.error is not None:
            raise job.error
        return facts

    def list(self, owner: str, most: int) -> list[dict[str, Any]]:
        """The newest jobs of an owner, what runs and what was made."""
        found = {job.id: job.facts() for job in self.engine.jobs() if job.request.owner == owner}
        for number in self.engine.results.numbers():
            if len(found) >= 2 * most:
                break
            if number not in found:
                try:
                    found[number] = self.facts(number, owner)
                except (NoSuchJob, DataError):
                    continue
        return [found[number] for number in sorted(found, reverse=True)][:most]


class NotReady(BadOption):
    """What is asked of a job is there only when it has ended."""


def router(engine: Engine) -> APIRouter:
    """The routes, on an engine."""
    routes, jobs = APIRouter(prefix="/v1/jobs", tags=["jobs"]), Jobs(engine)

    @routes.post("", status_code=202, summary="Ask for samples")
    def submit(request: Request, asked: Annotated[JobAsked, Body()]) -> JSONResponse:
        """Accepts a request, and answers at once with its id; `events` tells how it goes."""
        model = model_named(engine, asked.model)
        job = engine.submit(asked.request(model, owner_of(request)))
        return JSONResponse(job.facts(), 202, {"location": f"/v1/jobs/{job.id}"})

    @routes.get("", summary="The newest jobs")
    def listed(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """What waits, runs, and was made, the newest first."""
        return {"object": "list", "data": [_brief(facts) for facts in jobs.list(owner_of(request), limit)]}

    @routes.get("/{number}", summary="How a job goes")
    def one(request: Request, number: Number) -> dict[str, Any]:
        """State, progress, the settled recipe, and the error if there was one."""
        return jobs.facts(number, owner_of(request))

    @routes.get("/{number}/events", summary="How a job goes, as it goes")
    async def events(request: Request, number: Number, previews: bool = False) -> Response:
        """Server-sent events: `progress` now and then, and in the end `done`, `failed` or `cancelled`.

        Whoever reads slowly misses some progress, never the end. With `previews` some hold a picture of the estimate as JPEG,
        as many as take about a fortieth of the time.
        """
        owner = owner_of(request)
        job = jobs.running(number, owner)
        if job is None:
            facts = await run_in_threadpool(jobs.facts, number, owner)
            return stream(_once(facts))
        return stream(_events(job, previews))

    @routes.post("/{number}/cancel", summary="End a job")
    def cancel(request: Request, number: Number) -> dict[str, Any]:
        """Ends a job that waits or runs; one that has ended stays as it is."""
        job = jobs.running(number, owner_of(request))
        if job is not None:
            job.cancel()
        return jobs.facts(number, owner_of(request))

    @routes.get("/{number}/preview.{suffix}", summary="A picture of where it is")
    def preview(
        request: Request,
        number: Number,
        suffix: Literal["png", "jpeg", "webp"],
        what: Annotated[
            Literal["denoised", "noisy"], Query(description="the estimate, or the noisy samples")
        ] = "denoised",
    ) -> Response:
        """Of the newest step, decoded because somebody asks; there is none (204) before the first one and after the last."""
        job = jobs.running(number, owner_of(request))
        if job is None:
            jobs.facts(number, owner_of(request))
        look = None if job is None else job.look()
        if look is None:
            return Response(status_code=204)
        headers = {"x-step": str(look.step), "x-steps": str(look.steps), "cache-control": "no-store"}
        return Response(picture_of(getattr(look, what), suffix), media_type=MEDIA[suffix], headers=headers)

    _add_results(routes, engine, jobs)
    return routes


def _add_results(routes: APIRouter, engine: Engine, jobs: Jobs) -> None:
    """The routes that give what was made."""

    @routes.get("/{number}/result", summary="What a job made, and by which recipe")
    def result(request: Request, number: Number) -> Response:
        """The recipe, notes, and where the files are."""
        try:
            facts = jobs.check_done(number, owner_of(request))
        except NotReady as error:
            return refusal(409, str(error))
        made, root = engine.results.samples(number), f"/v1/jobs/{number}"
        image = made.spec.kind == "image"
        files = [f"{root}/images/{k}.png" for k in range(len(made))] if image else [f"{root}/result.npz"]
        whole = {**facts, "recipe": dict(made.recipe), "notes": made.notes, "files": files}
        return JSONResponse({**whole, "kind": made.spec.kind, "shape": made.spec.shape})

    @routes.get("/{number}/result.{suffix}", summary="All samples as one file")
    def file(request: Request, number: Number, suffix: Format) -> Response:
        """The file that `unnoise sample -o samples.SUFFIX` writes, with the recipe in it; animations need `keep_steps`."""
        try:
            jobs.check_done(number, owner_of(request))
        except NotReady as error:
            return refusal(409, str(error))
        content = engine.results.samples(number, frames=suffix in ("gif", "apng")).encode(f".{suffix}")
        return _download(content, f"{number}.{suffix}", suffix)

    @routes.get("/{number}/images/{index}.{suffix}", summary="One sample as a file")
    def image(
        request: Request,
        number: Number,
        index: Annotated[int, Path(ge=0)],
        suffix: Literal["png", "jpg", "webp", "npz"],
    ) -> Response:
        """The file that `unnoise sample -o folder/` writes for it."""
        try:
            jobs.check_done(number, owner_of(request))
        except NotReady as error:
            return refusal(409, str(error))
        made = engine.results.samples(number)
        if index >= len(made):
            raise NoSuchJob(f"there are {len(made)} samples, the first one is number 0, and {index} was asked for")
        return _download(made.one(index).encode(f".{suffix}"), f"{number}-{index}.{suffix}", suffix)

    @routes.delete("/{number}", summary="Delete what a job made")
    def delete(request: Request, number: Number) -> dict[str, Any]:
        """Ends the job where it still runs, and deletes what it made."""
        facts = jobs.facts(number, owner_of(request))
        job = jobs.running(number, owner_of(request))
        if job is not None:
            job.cancel()
            job.wait(10.0)
            job.forget()
        if number in engine.results.numbers():
            engine.results.delete(number)
        return {"id": facts["id"], "deleted": True}


def _download(content: bytes, name: str, suffix: str) -> Response:
    headers = {"content-disposition": f'inline; filename="{name}"', "cache-control": "private, max-age=3600"}
    return Response(content, media_type=MEDIA[suffix], headers=headers)


def _brief(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without the pictures that a recipe may hold, which are large, and are told in full where one job is asked for."""
    recipe = {name: value for name, value in facts["recipe"].items() if name not in ("image", "map")}
    return {**facts, "recipe": recipe}


async def _once(facts: dict[str, Any]) -> AsyncIterator[str]:
    yield event(facts["state"], facts, facts["version"])


async def _events(job: Job, previews: bool) -> AsyncIterator[str]:
    """What happens to a job, the newest state each time that the client has taken the one before.

    Pictures come less often where decoding and encoding them takes long, since that slows down what is watched.
    """
    async with Following(job) as following:
        told_version, due = -1, 0.0
        while True:
            facts = job.facts()
            if facts["state"] in ENDS:
                if job.error is not None:
                    facts |= {"error": body_of(job.error)["error"]}
                yield event(facts["state"], facts, facts["version"])
                return
            if facts["version"] != told_version:
                told_version = facts["version"]
                if previews and perf_counter() >= due:
                    began = perf_counter()
                    facts["preview"] = await run_in_threadpool(_preview, job)
                    due = perf_counter() + (perf_counter() - began) / PREVIEWS_TAKE
                yield event("progress", _brief(facts), told_version)
                await asyncio.sleep(OFTEN)
            elif not await following.changed(QUIET):
                yield ": still at it\n\n"


def _preview(job: Job) -> str | None:
    look = job.look()
    if look is None or look.step == 0:
        return None
    try:
        return base64.b64encode(picture_of(look.denoised, "jpeg")).decode()
    except BadOption:
        return None
