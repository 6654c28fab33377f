"""The room Train: data looked at, runs begun, watched, paused and resumed; each is an ordinary run folder of `unnoise train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Body
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from ..data.base import datasets
from ..data.inspect import inspect_data
from ..data.open import source_of
from ..engine.engine import Engine
from ..errors import BadOption, UnnoiseError
from ..recipes.background import BackgroundRuns
from ..recipes.recipe import read_values, shipped
from ..training.settings import TrainingSettings
from .answers import PlainRoute, array
from .controls import controls

SHOWN = 64
"""Samples of the data that are shown."""


class NewRun(BaseModel):
    """A run that a person wants."""

    name: str = Field(description="of its folder", examples=["my-digits"])
    recipe: str = Field(description="a shipped recipe", examples=["digits"])
    data: str = Field("", description="a folder or file of yours, or a shipped data set; empty for the recipe's own")
    options: dict[str, Any] = Field(default_factory=dict, description="of training, by name", examples=[{"steps": 600}])
    seed: int = 0


class DataPlace(BaseModel):
    """Data that a person wants to see."""

    path: str = Field(description="a folder or file of yours, or a shipped data set", examples=["digits"])


def routes(runs: BackgroundRuns, engine: Engine, roots: Sequence[Path]) -> APIRouter:
    """What the room asks for.

    Args:
        runs: That are shown.
        engine: Whose shelf gets the models of runs.
        roots: Folders that data may be read from.
    """
    router = APIRouter(prefix="/train", route_class=PlainRoute)

    @router.get("/parts")
    def choices() -> dict[str, Any]:
        """Recipes with the values that they begin with, data sets, and the controls of a training."""
        return {"recipes": _recipes(), "data": _own_sets(), "controls": controls(TrainingSettings)}

    _looking(router, roots)
    _running(router, runs, engine, roots)
    return router


def _looking(router: APIRouter, roots: Sequence[Path]) -> None:
    """Data, looked at before it is learned from."""

    @router.post("/look")
    def look(place: Annotated[DataPlace, Body()]) -> dict[str, Any]:
        """What some data holds, and samples of it."""
        path = allowed(place.path, roots)
        source = datasets.build(path) if path in datasets else source_of(path)
        found = source.load()
        part = found.part(SHOWN * 8)
        chosen = torch.tensor(list(range(0, len(part), max(1, len(part) // SHOWN)))[:SHOWN])
        shown = part.x[:2000] if part.spec.kind == "points" else part.x[chosen]
        labels = [part.spec.class_names[int(part.labels[i])] for i in chosen] if part.labels is not None else []
        texts = [part.texts[int(i)] for i in chosen] if part.texts else []
        return {
            **inspect_data(found).as_dict(),
            "where": found.layout(),
            "shown": array(shown),
            "names": texts or labels,
        }


def _running(router: APIRouter, runs: BackgroundRuns, engine: Engine, roots: Sequence[Path]) -> None:
    """Runs, from their beginning to their end."""

    @router.get("/runs")
    def every() -> list[dict[str, Any]]:
        """All runs, the newest first."""
        return [runs.facts(name) for name in runs.names()]

    @router.post("/runs")
    def begin(run: Annotated[NewRun, Body()]) -> dict[str, Any]:
        """Begins a run."""
        known = {control["name"] for control in controls(TrainingSettings)}
        for name in run.options:
            if name not in known:
                raise BadOption(f"training.{name}: there is no such option")
        overrides = [f"training.{name}={_typed(value)}" for name, value in run.options.items()]
        runs.begin(run.name, run.recipe, [*overrides, f"seed={run.seed}"], allowed(run.data, roots) if run.data else "")
        return runs.facts(run.name)

    @router.get("/runs/{name}")
    def facts(name: str) -> dict[str, Any]:
        """How a run stands, with its curves; the model of a run that has one stands on the shelf from then on."""
        found = runs.facts(name)
        if found["has_model"] and name not in engine.shelf.names():
            try:
                engine.shelf.add(runs.folder / name, name)
            except UnnoiseError:  # another model has the name: it stays
                pass
        return {**found, "curves": runs.curves(name)}

    @router.post("/runs/{name}/pause")
    def pause(name: str) -> dict[str, Any]:
        """Saves and ends it after its step, to go on later."""
        runs.end(name)
        return runs.facts(name)

    @router.post("/runs/{name}/stop")
    def stop(name: str) -> dict[str, Any]:
        """Saves and ends it after its step."""
        runs.end(name, stopped=True)
        return runs.facts(name)

    @router.post("/runs/{name}/resume")
    def resume(name: str) -> dict[str, Any]:
        """Goes on with it."""
        runs.resume(name)
        return runs.facts(name)

    @router.get("/runs/{name}/pictures/{file}")
    def picture(name: str, file: str) -> FileResponse:
        """Samples that it has drawn on its way."""
        return FileResponse(runs.picture(name, file), media_type="image/png", headers={"cache-control": "no-cache"})


def allowed(path: str, roots: Sequence[Path]) -> str:
    """A path that may be read: a shipped data set's name, or a place within one of the roots.

    Args:
        path: As it was typed.
        roots: Folders that data may be read from.

    Raises:
        BadOption: It leads out of them.
    """
    if path in _own_sets():
        return path
    place = Path(path).expanduser()
    resolved = place.resolve()
    if not path.strip() or not any(resolved.is_relative_to(root.resolve()) for root in roots):
        listed = ", ".join(str(root) for root in roots)
        raise BadOption(
            f"data: {path!r} does not lie in {listed}: put it there, or start the studio with --data FOLDER"
        )
    return str(resolved)


def _own_sets() -> list[str]:
    """The data sets that come with unnoise and need no file."""
    return [
        name for name in datasets if not any(control["required"] for control in controls(datasets.options_class(name)))
    ]


def _recipes() -> list[dict[str, Any]]:
    found = []
    for name, description in shipped().items():
        values = read_values(name)
        if values.get("kind", "diffusion") != "diffusion":
            continue  # what other kinds make is no model that the studio shows
        own = values.get("data", {})
        data = str(own.get("name", "")) if isinstance(own, dict) else str(own)
        found.append(
            {
                "name": name,
                "description": description,
                "data": data if data in _own_sets() else "",
                "training": dict(values.get("training", {})),
            }
        )
    return found


def _typed(value: Any) -> str:
    """A value as a person would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)
