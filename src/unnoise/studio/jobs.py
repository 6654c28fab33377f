"""Work of the engine as the page follows it: asked for, watched step by step, ended, and looked back on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Body, Query, Response
from fastapi.responses import StreamingResponse
from safetensors.torch import save
from starlette.requests import Request as HttpRequest
from torch import Tensor

from ..engine.engine import Engine
from ..engine.job import ENDS, Job
from ..engine.request import Request
from ..errors import UnnoiseError
from ..recipes.beside_exact import shrinks
from .answers import PlainRoute, array, owner_of

EVERY = 0.06
"""Seconds between two looks at what is being made."""
QUIET = 10.0
"""Seconds after which a stream says that it is still there."""
MOST_BYTES = 96 * 1024 * 1024
"""Of steps that are sent to a page; of longer runs, steps from all over."""


def routes(engine: Engine) -> APIRouter:
    """Submit, list, follow, cancel, look back."""
    router = APIRouter(prefix="/jobs", route_class=PlainRoute)

    @router.post("")
    def submit(asked: HttpRequest, values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Takes a request; see `unnoise.engine.request.Request` for its names."""
        return engine.submit(Request.of({**values, "owner": owner_of(asked)})).facts()

    @router.get("")
    def under_way(asked: HttpRequest) -> list[dict[str, Any]]:
        """What is known of the requests of whoever asks that wait or run, the newest first."""
        owner = owner_of(asked)
        return [job.facts() for job in engine.jobs() if not job.ended and job.request.owner == owner]

    @router.get("/events")
    def events(of: Annotated[list[str], Query(min_length=1, max_length=100)], look: bool = True) -> StreamingResponse:
        """What happens to some requests, as server-sent events: the facts, and the newest step with them if `look`.

        One stream tells of all, since browsers keep few connections open at a time.
        """
        jobs = [engine.job(number) for number in of]
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(_events(jobs, look), media_type="text/event-stream", headers=headers)

    @router.get("/{number}")
    def facts(number: str) -> dict[str, Any]:
        """What is known of a request."""
        return engine.job(number).facts()

    @router.post("/{number}/cancel")
    def cancel(number: str) -> dict[str, Any]:
        """Ends a request."""
        job = engine.job(number)
        job.cancel()
        return job.facts()

    @router.get("/{number}/steps")
    def steps(number: str, most: Annotated[int, Query(ge=2, le=2000)] = 1001) -> Response:
        """Every step, as safetensors; see `kept_steps`."""
        return tensors(kept_steps(engine, number, most))

    return router


def tensors(named: dict[str, Tensor]) -> Response:
    """An answer of arrays, as the bytes of a safetensors file."""
    return Response(save(named), media_type="application/octet-stream", headers={"cache-control": "no-cache"})


def _events(jobs: Sequence[Job], look: bool) -> Iterator[str]:
    """The facts of each request whenever they have changed, until all have ended."""
    changed = threading.Event()
    stops = [job.watch(changed.set) for job in jobs]
    versions: dict[str, int] = {}
    steps: dict[str, int] = {}
    try:
        while True:
            changed.clear()
            for job in jobs:
                facts = job.facts()
                if versions.get(job.id) == facts["version"]:
                    continue
                versions[job.id] = facts["version"]
                if look and not job.ended:
                    _add_look(facts, job, steps)
                yield f"data: {json.dumps(facts)}\n\n"
                if facts["state"] in ENDS:
                    jobs = [each for each in jobs if each is not job]
            if not jobs:
                return
            time.sleep(EVERY)
            while not changed.wait(QUIET):
                yield ": still here\n\n"
    finally:
        for stop in stops:
            stop()


def _add_look(facts: dict[str, Any], job: Job, steps: dict[str, int]) -> None:
    """Adds the newest step to the facts where it was not told yet; `steps` says which was, by request."""
    found = job.look()
    if found is None or steps.get(job.id) == found.step:
        return
    steps[job.id] = found.step
    facts["look"] = {
        "step": found.step,
        "t": found.t,
        "noisy": array(found.noisy),
        "denoised": array(found.denoised),
    }


def kept_steps(engine: Engine, number: str, most: int) -> dict[str, Tensor]:
    """The steps of a result, thinned where they are too many to send.

    Args:
        engine: That made it.
        number: Of the request.
        most: Steps that are sent at most.

    Returns:
        `step` and `t` of shape (k,), `noisy` and `denoised` of shape (k, n, ...), and `shrink`, shape (k,): by what the noisy
        samples are drawn smaller.

    Raises:
        UnnoiseError: There is no such result, or its steps were not kept.
    """
    found = engine.results.steps(number)
    return sent_steps(engine, engine.results.facts(number)["model"], found.t, found.noisy, found.denoised, most)


def sent_steps(
    engine: Engine, name: str, t: Tensor, noisy: Tensor, denoised: Tensor, most: int = 1001
) -> dict[str, Tensor]:
    """The steps of a run as a page gets them; see `kept_steps`.

    Args:
        engine: That has the model.
        name: Of the model.
        t: Times, shape (steps + 1,).
        noisy: Shape (steps + 1, n, ...).
        denoised: Same shape.
        most: Steps that are sent at most.
    """
    most = max(2, min(most, int(MOST_BYTES * len(t) / max(noisy.nbytes + denoised.nbytes, 1))))
    some = sorted({round(i * (len(t) - 1) / (most - 1)) for i in range(most)}) if len(t) > most else range(len(t))
    chosen = torch.tensor(list(some))
    times = t[chosen].tolist()
    try:
        with engine.shelf.borrow(name) as model:
            shrink = shrinks(model, times) if model.spec.kind == "points" else [1.0] * len(times)
    except UnnoiseError:  # the model is gone, and what it made is still there
        shrink = [1.0] * len(times)
    return {
        "step": chosen.int(),
        "t": t[chosen].float(),
        "shrink": torch.tensor(shrink),
        "noisy": noisy[chosen].contiguous(),
        "denoised": denoised[chosen].contiguous(),
    }
