"""`/sdapi/v1`: the few routes of the Stable Diffusion web UI that other front ends ask."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from ..editing.beginnings import PICTURE
from ..engine.engine import Engine
from ..engine.job import Job
from ..engine.request import Request as Wanted
from ..errors import BadOption
from ..samplers.base import samplers
from ..samplers.grids import GRIDS
from .following import ended, model_named
from .guard import owner_of
from .images import picture_of
from .refusing import told
from .schemas import Strict


class TextToImage(Strict):
    """What the web UI sends; names that are not known here are left aside, as it does itself."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"prompt": "3", "steps": 20, "cfg_scale": 2.0, "seed": 7, "batch_size": 4}]},
    )
    prompt: str = Field("", description="words; or the name of a label, of a model that knows labels alone")
    negative_prompt: str = ""
    seed: int = Field(-1, description="-1 draws one")
    steps: int | None = Field(None, ge=1)
    cfg_scale: float | None = Field(None, ge=0, le=1000)
    distilled_cfg_scale: float | None = Field(
        None, ge=0, le=1000, description="told to a model that guidance was distilled into; left aside for any other"
    )
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = Field(None, description="the grid of times")
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    width: int | None = None
    height: int | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)


class ImageToImage(TextToImage):
    """The same, and the pictures to begin from."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"init_images": [PICTURE], "denoising_strength": 0.6, "prompt": "3", "seed": 7}]
        },
    )
    init_images: list[str] = Field(min_length=1, max_length=64, description="in base64: one for all, or one for each")
    denoising_strength: float = Field(0.75, ge=0, le=1, description="how much of them is made anew; all steps are made")
    mask: Any = Field(None, description="refused: only whole pictures are edited here")

    def begin(self) -> dict[str, Any]:
        """The pictures and their strength, as the engine takes them.

        Raises:
            BadOption: There is a mask.
        """
        if self.mask is not None:
            raise BadOption("mask: only whole pictures are edited here, by denoising_strength: leave it out")
        texts = [text if text.startswith("data:") else PICTURE + text for text in self.init_images]
        return {"image": texts[0] if len(texts) == 1 else texts, "strength": self.denoising_strength}


class Choices(Strict):
    """Options of the web UI that mean something here."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"sd_model_checkpoint": "digits"}]})
    sd_model_checkpoint: str | None = None


class _Desk:
    """What the web UI keeps on its server: the chosen model, and the newest request, of each owner."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.chosen: dict[str, str] = {}
        self.newest: dict[str, Job] = {}
        self.lock = threading.Lock()

    def model(self, owner: str, asked: Any) -> str:
        name = asked or self.chosen.get(owner)
        if name is not None and not isinstance(name, str):
            raise BadOption(f"override_settings.sd_model_checkpoint: expected a name, got {name!r}")
        if name is None and self.engine.shelf.names():
            name = self.engine.shelf.names()[0]
        return model_named(self.engine, None if name is None else name.partition(" [")[0])

    def wanted(self, asked: TextToImage, owner: str, **begin: Any) -> Wanted:
        model = self.model(owner, asked.override_settings.get("sd_model_checkpoint"))
        card = self.engine.shelf.card(model)
        if card.kind != "image":
            raise BadOption(f"model: {model} makes no images: ask for its samples at /v1/jobs")
        size = asked.width or card.shape[2], asked.height or card.shape[1]
        if size != (card.shape[2], card.shape[1]) and size != (
            512,
            512,
        ):  # which front ends send where nobody has chosen
            raise BadOption(f"width: {model} makes images of {card.shape[2]}x{card.shape[1]}, got {size[0]}x{size[1]}")
        prompt, label = asked.prompt.strip() or None, None
        if prompt is not None and not card.takes_words and prompt in card.labels:
            prompt, label = None, prompt
        sampler = asked.sampler_name or asked.sampler_index
        told = asked.distilled_cfg_scale if card.takes_embedded_guidance else None
        return Wanted(
            model, n=asked.batch_size * asked.n_iter, label=label, prompt=prompt,
            negative_prompt=asked.negative_prompt.strip() or None, sampler=_known(sampler, samplers), steps=asked.steps,
            guidance=asked.cfg_scale, embedded_guidance=told, grid=_known(asked.scheduler, GRIDS),
            seed=secrets.randbelow(2**31) if asked.seed == -1 else asked.seed, owner=owner, **begin,
        )  # fmt: skip


def _known(name: str | None, names: Any) -> str | None:
    """A name as it is known here: `Euler` is `euler`; the web UI's own word for no choice is none."""
    if not name or name.lower() == "automatic":
        return None
    return next((each for each in names if each.lower() == name.lower().replace(" ", "_")), name)


def router(engine: Engine) -> APIRouter:
    """The routes, on an engine."""
    routes, desk = APIRouter(prefix="/sdapi/v1", tags=["Stable Diffusion web UI"]), _Desk(engine)

    async def made(request: Request, asked: TextToImage, **begin: Any) -> Response:
        owner = owner_of(request)
        job = await run_in_threadpool(lambda: engine.submit(desk.wanted(asked, owner, **begin)))
        with desk.lock:
            desk.newest[owner] = job
        if not await ended(job, request):
            return JSONResponse(told(410, "the client has left"), 410)
        return JSONResponse(await run_in_threadpool(_answer, job, asked))

    @routes.post("/txt2img", summary="Make images")
    async def txt2img(request: Request, asked: Annotated[TextToImage, Body()]) -> Response:
        """Makes images, and answers with them in base64."""
        return await made(request, asked)

    @routes.post("/img2img", summary="Make images from others")
    async def img2img(request: Request, asked: Annotated[ImageToImage, Body()]) -> Response:
        """Noises images to `denoising_strength`, samples from there, and answers with what comes out in base64."""
        return await made(request, asked, **asked.begin())

    @routes.get("/progress", summary="How the newest request goes")
    def progress(request: Request, skip_current_image: bool = False) -> dict[str, Any]:
        """Of the newest request of the one who asks."""
        job = desk.newest.get(owner_of(request))
        if job is None or job.ended:
            state = {"job": "", "job_count": 0, "sampling_step": 0, "sampling_steps": 0}
            return {"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None}
        facts, look = job.facts(), None if skip_current_image else job.look()
        return {
            "progress": facts["step"] / max(facts["steps"], 1),
            "eta_relative": facts["eta"] or 0.0,
            "state": {"job": job.id, "job_count": 1, "sampling_step": facts["step"], "sampling_steps": facts["steps"]},
            "current_image": None if look is None else base64.b64encode(picture_of(look.denoised, "jpeg")).decode(),
            "textinfo": facts["state"],
        }

    @routes.post("/interrupt", summary="End the newest request")
    def interrupt(request: Request) -> dict[str, Any]:
        """Of the one who asks."""
        job = desk.newest.get(owner_of(request))
        if job is not None:
            job.cancel()
        return {}

    @routes.get("/sd-models", summary="The models")
    def sd_models() -> list[dict[str, Any]]:
        """All that make images."""
        names = [card.name for card in engine.shelf.cards() if card.kind == "image"]
        return [
            {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
            for name in names
        ]

    @routes.get("/samplers", summary="The samplers")
    def all_samplers() -> list[dict[str, Any]]:
        """By their names here."""
        return [{"name": name, "aliases": [], "options": {}} for name in samplers]

    @routes.get("/schedulers", summary="The grids of times")
    def schedulers() -> list[dict[str, Any]]:
        """By their names here."""
        return [{"name": name, "label": name, "aliases": None} for name in sorted(GRIDS)]

    @routes.get("/options", summary="What is chosen")
    def options(request: Request) -> dict[str, Any]:
        """The chosen model."""
        return {"sd_model_checkpoint": desk.model(owner_of(request), None)}

    @routes.post("/options", summary="Choose")
    def choose(request: Request, choices: Annotated[Choices, Body()]) -> dict[str, Any]:
        """Chooses the model of the one who asks."""
        if choices.sd_model_checkpoint is not None:
            desk.chosen[owner_of(request)] = desk.model(owner_of(request), choices.sd_model_checkpoint)
        return {}

    return routes


def _answer(job: Job, asked: TextToImage) -> dict[str, Any]:
    made = job.samples()
    images = [base64.b64encode(made.one(k).encode(".png")).decode() for k in range(len(made))]
    info = {
        "seed": job.request.seed,
        "all_seeds": [job.request.seed] * len(made),
        "job": job.id,
        "recipe": dict(made.recipe),
    }
    parameters = asked.model_dump(exclude={"init_images"})  # the client has them
    return {"images": images, "parameters": parameters, "info": json.dumps(info)}
