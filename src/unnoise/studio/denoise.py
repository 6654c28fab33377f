"""The room Denoise: what can be asked for, the exact denoiser in the model's place, and the score as arrows."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter, Query, Response

from ..data.base import Dataset
from ..engine.engine import Engine
from ..engine.shelf import Card
from ..errors import DataError
from ..guidance.base import guidances
from ..guidance.helped import Helped
from ..model import Model
from ..recipes.beside_exact import centre, exact_previews, shrinks
from ..recipes.gallery import limits_of
from ..recipes.score_field import score_numbers
from ..samplers import grids
from ..samplers.base import samplers
from .answers import PlainRoute, array
from .controls import parts
from .jobs import sent_steps, tensors
from .known import training_data


def routes(engine: Engine) -> APIRouter:
    """What the rooms Denoise and Steer ask for."""
    router = APIRouter(prefix="/denoise", route_class=PlainRoute)

    @router.get("/parts")
    def choices() -> dict[str, Any]:
        """Models, and everything that may be chosen for them, with its controls."""
        return {
            "models": [brief(card) for card in engine.shelf.cards() if card.kind in ("points", "image")],
            "samplers": parts(samplers),
            "guidance": [each for each in parts(guidances) if not issubclass(guidances[each["name"]], Helped)],
            "grids": [{"name": name, "summary": text} for name, text in grids.SUMMARIES.items()],
        }

    @router.get("/models/{name}")
    def drawing(name: str) -> dict[str, Any]:
        """How samples of a model are drawn, and what is known of its data."""
        with engine.shelf.borrow(name) as model:
            data = training_data(model)
            points = model.spec.kind == "points"
            return {
                **brief(engine.shelf.card(name)),
                "window": limits_of(model.spec, data.x) if points and data is not None else None,
                "centre": centre(model) if points else [],
                "data": array(data.x[:2000]) if points and data is not None else None,
                "data_known": data is not None,
            }

    @router.get("/exact/{number}")
    def exact(number: str) -> Response:
        """The steps of the exact denoiser by the recipe of a result; see `kept_steps`."""
        facts = engine.results.facts(number)
        with engine.shelf.borrow(facts["model"]) as model:
            steps = list(exact_previews(model, _data(model), facts["recipe"]))
            times = torch.tensor([each.t for each in steps])
            noisy, denoised = (torch.stack([getattr(each, side) for each in steps]) for side in ("x", "denoised"))
            if model.spec.kind == "image":
                noisy, denoised = (x.round().clamp(0, 255).byte() for x in (noisy, denoised))
            else:
                noisy, denoised = noisy.float(), denoised.float()
        return tensors(sent_steps(engine, facts["model"], times, noisy, denoised))

    @router.get("/field/{name}")
    def field(
        name: str, t: Annotated[float, Query(gt=0, le=1)], lattice: Annotated[int, Query(ge=5, le=41)] = 19
    ) -> dict[str, Any]:
        """The score of a model at a time, and the exact one of its data where that is known."""
        with engine.shelf.borrow(name) as model:
            shrink = shrinks(model, [t])[0]
            found = score_numbers(model, t, training_data(model), lattice, shrink)
        return {
            "shrink": shrink,
            "at": array(found.at),
            "learned": array(found.learned),
            "exact": None if found.exact is None else array(found.exact),
            "cloud": None if found.cloud is None else array(found.cloud[:2000]),
            "error": found.error,
            "window": found.window,
        }

    return router


def brief(card: Card) -> dict[str, Any]:
    """What rooms need to know of a model before they ask it for anything."""
    return {
        "name": card.name,
        "kind": card.kind,
        "shape": list(card.shape),
        "labels": list(card.labels),
        "words": card.takes_words,
        "embedded_guidance": card.takes_embedded_guidance,
        "sampling": dict(card.sampling or {}),
    }


def _data(model: Model) -> Dataset:
    data = training_data(model)
    if data is None:
        raise DataError(
            "the exact denoiser is that of the model's training data, which is not known here: "
            "keep the model in its run folder, with the recipe beside it"
        )
    return data
