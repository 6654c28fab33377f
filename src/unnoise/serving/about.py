"""What a server knows of itself: its models and their parts, its health, and its figures."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import Scope

from .. import __version__
from ..engine.engine import Engine
from ..guidance.base import guidances
from ..process.base import schedules
from ..registry import Registry
from ..samplers.base import samplers
from ..samplers.grids import GRIDS
from .schemas import grid_schema

FIGURES_TYPE = "text/plain; version=0.0.4"
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")


class Answers:
    """Counts answers, by route and status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def __call__(self, scope: Scope, status: int) -> None:
        """Notes one; by the pattern of its route, for there are few of these and many paths."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        with self._lock:
            self._counts[method, route, status] += 1

    def lines(self) -> list[str]:
        """As Prometheus reads them."""
        with self._lock:
            counts = sorted(self._counts.items())
        return [
            f'unnoise_http_answers_total{{method="{method}",route="{route}",status="{status}"}} {n}'
            for (method, route, status), n in counts
        ]


def models(engine: Engine) -> list[dict[str, Any]]:
    """The models as OpenAI's clients list them, with what else is known of each."""
    found = []
    for card in engine.shelf.cards():
        about = {key: value for key, value in dataclasses.asdict(card).items() if key not in ("name", "path")}
        found.append({"id": card.name, "object": "model", "created": 0, "owned_by": "unnoise", **about})
    return found


def parts() -> dict[str, Any]:
    """What samplers, guidance rules, grids and schedules there are, each with its options as JSON Schema."""

    def members(registry: Registry[Any]) -> dict[str, Any]:
        return {each["title"]: each for each in registry.json_schema()["anyOf"] if "title" in each}

    return {
        "samplers": members(samplers),
        "guidances": members(guidances),
        "schedules": members(schedules),
        "grids": {"names": sorted(GRIDS), "schema": grid_schema()},
    }


def figures(engine: Engine, answers: Answers) -> str:
    """The figures of a server as Prometheus reads them."""
    calls, asked = engine.shared()
    counts = engine.counts
    rows: list[tuple[str, str, str, Callable[[], Any]]] = [
        ("requests_waiting", "gauge", "Requests that wait.", engine.waiting),
        ("requests_active", "gauge", "Requests that are worked on.", engine.active),
        ("models_bytes", "gauge", "Bytes of weights in memory.", engine.shelf.loaded),
        ("models_loads_total", "counter", "Models loaded.", lambda: engine.shelf.loads),
        ("network_calls_total", "counter", "Network calls made.", lambda: calls),
        ("network_calls_asked_total", "counter", "Network calls asked for, before they were shared.", lambda: asked),
        ("samples_total", "counter", "Samples made.", lambda: counts["samples"]),
        ("steps_total", "counter", "Steps made.", lambda: counts["steps"]),
    ]
    lines = [
        line
        for name, kind, about, value in rows
        for line in (f"# HELP unnoise_{name} {about}", f"# TYPE unnoise_{name} {kind}", f"unnoise_{name} {value()}")
    ]
    lines += ["# HELP unnoise_requests_total Requests by how they ended.", "# TYPE unnoise_requests_total counter"]
    lines += [
        f'unnoise_requests_total{{state="{state}"}} {counts[state]}'
        for state in ("done", "failed", "cancelled", "refused")
    ]
    lines += [
        "# HELP unnoise_http_answers_total Answers.",
        "# TYPE unnoise_http_answers_total counter",
        *answers.lines(),
    ]
    return "\n".join([*lines, ""])


def router(engine: Engine, answers: Answers) -> APIRouter:
    """The routes, on an engine."""
    routes = APIRouter(tags=["about"])

    @routes.get("/v1/models", summary="The models")
    def listed() -> dict[str, Any]:
        """All models, loaded or not."""
        return {"object": "list", "data": models(engine)}

    @routes.get("/v1/models/{name}", summary="One model")
    def one(name: str) -> dict[str, Any]:
        """What is known of a model."""
        engine.shelf.place(name)
        return next(each for each in models(engine) if each["id"] == name)

    @routes.get("/v1/parts", summary="Samplers, guidance rules, grids and schedules")
    def all_parts() -> dict[str, Any]:
        """Each with its options: type, range, default and help, as JSON Schema."""
        return parts()

    @routes.get("/health", summary="Whether the server takes requests")
    def health() -> JSONResponse:
        """200 while it takes requests, 503 while it shuts down; needs no key."""
        state = "closing" if engine.closing else "ok"
        told = {
            "status": state,
            "version": __version__,
            "waiting": engine.waiting(),
            "active": engine.active(),
        }
        return JSONResponse(told, 503 if engine.closing else 200)

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Counters and gauges in the text format."""
        return PlainTextResponse(figures(engine, answers), media_type=FIGURES_TYPE)

    return routes
