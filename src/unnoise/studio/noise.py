"""The room Noise: what a schedule does to data. The page gets its numbers once and mixes x_t by itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field

from ..data.base import Dataset, datasets
from ..errors import BadOption, UnknownName
from ..process.base import Schedule, schedules
from ..recipes.forward_numbers import LEVELS, clean_and_noise, levels, noise_like
from .answers import PlainRoute, array
from .controls import controls, parts

FIRST = "cosine", "linear"
"""The schedules that the room begins with."""
MOST_VALUES = 3 * 512 * 512
"""Numbers in a picture that noise is made for."""


class Curve(BaseModel):
    """A schedule by its name and options."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="of a schedule: see `unnoise list schedules`", examples=["cosine"])


def routes() -> APIRouter:
    """What the room asks for."""
    router = APIRouter(prefix="/noise", route_class=PlainRoute)

    @router.get("/parts")
    def choices() -> dict[str, Any]:
        """Schedules and data sets that can be looked at, with their controls, and what the room begins with."""
        drawable = [each for each in parts(schedules) if not any(c["required"] for c in each["controls"])]
        return {
            "schedules": drawable,
            "data": list(_shown_sets()),
            "levels": LEVELS,
            "first": {"curves": [curve(Curve(name=name)) for name in FIRST], "data": data(_shown_sets()[0])},
        }

    @router.post("/curve")
    def curve(spec: Annotated[Curve, Body()]) -> dict[str, Any]:
        """Alpha, sigma and log-SNR of a schedule at every level."""
        schedule: Schedule = schedules.build(spec.model_dump(), "schedule")
        found = levels(schedule)
        return {
            "name": spec.name,
            "alpha": found.alpha,
            "sigma": found.sigma,
            "log_snr": found.log_snr,
            "own_levels": schedule.num_steps,
            "controls": controls(type(schedule)),
        }

    @router.get("/data/{name}")
    def data(
        name: str, n: Annotated[int, Query(ge=1, le=2000)] = 300, seed: Annotated[int, Query(ge=0, le=2**31)] = 0
    ) -> dict[str, Any]:
        """Clean data and its noise."""
        if name not in _shown_sets():
            raise UnknownName("data set", name, _shown_sets())
        dataset = _loaded(name)
        x_0, eps = clean_and_noise(dataset, n if dataset.spec.kind == "points" else 9, seed)
        return {"name": name, "kind": dataset.spec.kind, "x_0": array(x_0), "eps": array(eps)}

    @router.get("/eps")
    def eps(
        width: Annotated[int, Query(ge=1, le=512)],
        height: Annotated[int, Query(ge=1, le=512)],
        channels: Annotated[int, Query(ge=1, le=3)] = 3,
        seed: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> dict[str, Any]:
        """Noise for a picture of the person's own, which stays where it is: in the browser."""
        if width * height * channels > MOST_VALUES:
            raise BadOption(f"expected a picture of at most {MOST_VALUES} values, got {width} x {height} x {channels}")
        return array(noise_like((channels, height, width), seed))

    return router


@lru_cache(maxsize=1)
def _shown_sets() -> tuple[str, ...]:
    """The data sets that come with unnoise, need no file, and are small: points, and the digits."""
    names = []
    for name in datasets:
        options = {control["name"]: control for control in controls(datasets.options_class(name))}
        if any(control["required"] for control in options.values()):
            continue
        if "num_points" in options or not options:
            names.append(name)
    return tuple(sorted(names, key=lambda name: (name != "spiral", name)))


@lru_cache(maxsize=32)
def _loaded(name: str) -> Dataset:
    return datasets.build(name).load().part()  # type: ignore[no-any-return]
