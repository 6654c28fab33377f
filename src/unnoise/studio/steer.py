"""The room Steer: what guidance does to samples, as numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from ..engine.engine import Engine
from ..recipes.steered import readings
from .answers import PlainRoute
from .known import training_data


def routes(engine: Engine) -> APIRouter:
    """What the room asks for beside jobs."""
    router = APIRouter(prefix="/steer", route_class=PlainRoute)

    @router.get("/readings/{number}")
    def numbers(number: str) -> list[dict[str, Any]]:
        """Adherence, diversity and saturation of what a request made."""
        facts = engine.results.facts(number)
        with engine.shelf.borrow(facts["model"]) as model:
            data = training_data(model)
        return [asdict(each) for each in readings(engine.results.samples(number), data)]

    return router
