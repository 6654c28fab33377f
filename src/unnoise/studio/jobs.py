"""Work of the engine as the page follows it: asked for, watched step by step, ended, and looked back on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Body, Query, Response
from fastapi.responses import StreamingResponse
from safetensors.torch import save
from torch import Tensor

from ..engine.engine import Engine
from ..engine.job import Job
from ..engine.request import Request
from ..errors import UnnoiseError
from ..recipes.beside_exact import shrinks
from .answers import PlainRoute, array

EVERY = 0.06
"""Seconds between two looks at what is being made."""
MOST_BYTES = 96 * 1024 * 1024
"""Of steps that are sent to a page; of longer runs, steps from all over."""


def routes(engine: Engine) -> APIRouter:
    """Submit, follow, cancel, look back."""
    router = APIRouter(prefix="/jobs", route_class=PlainRoute)

    @router.post("")
    def submit(values: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        """Takes a request; see `unnoise.engine.request.Request` for its names."""
        return engine.submit(Request.of(values)).facts()

    @router.get("/{number}")
    def facts(number: str) -> dict[str, Any]:
        """What is known of a request."""
        return engine.job(number).facts()

    @router.get("/{number}/events")
    def events(number: str, look: bool = True) -> StreamingResponse:
        """What happens, as server-sent events: the facts, and the newest step with them if `look`."""
        job = engine.job(number)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(_events(job, look), media_type="text/event-stream", headers=headers)

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


def _events(job: Job, look: bool) -> Iterator[str]:
    version, seen = -1, -1
    while True:
        facts = job.facts()
        version = facts["version"]
        found = job.look() if look and not job.ended else None
        if found is not None and found.step != seen:
            seen = found.step
            facts["look"] = {
                "step": found.step,
                "t": found.t,
                "noisy": array(found.noisy),
                "denoised": array(found.denoised),
            }
        yield f"data: {json.dumps(facts)}\n\n"
        if facts["state"] in ("done", "failed", "cancelled"):
            return
        time.sleep(EVERY)
        while job.changed(version, 10.0) == version and not job.ended:
            yield ": still here\n\n"


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
