"""`/v1/images/generations`: images as OpenAI's clients ask for them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from ..engine.engine import Engine
from ..engine.job import Job, Look
from ..errors import BadOption
from ..pictures.grid import image_grid, to_images
from ..samples import Samples
from .following import Following, ended, event, model_named, stream
from .guard import owner_of
from .refusing import body_of, status_of, told
from .schemas import ImagesAsked

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
USAGE = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}  # fmt: skip


def router(engine: Engine) -> APIRouter:
    """The routes, on an engine."""
    routes = APIRouter(tags=["OpenAI images"])

    @routes.post("/v1/images/generations", summary="Make images")
    async def generate(request: Request, asked: Annotated[ImagesAsked, Body()]) -> Response:
        """Makes images, and answers with them; with `stream` also with partial ones on the way.

        The shape is OpenAI's; `extra_body` of its Python client takes what unnoise can be told besides: seed, steps, label, ...
        """
        return await answered(engine, request, asked, "image_generation")

    return routes


async def answered(engine: Engine, request: Request, asked: ImagesAsked, kind: str) -> Response:
    """The answer to a request for images: them, or with `stream` events on the way.

    Args:
        engine: That makes them.
        request: What came.
        asked: What it asks for.
        kind: How events are called: "image_generation" or "image_edit".
    """
    model = model_named(engine, asked.model)
    size = _size(engine, model, asked.size)
    glances: list[Callable[[], Look]] = []

    def prepare(job: Job) -> None:
        if asked.stream:
            job.watch(lambda: _collect(job, asked.partial_images, glances))

    job = await run_in_threadpool(lambda: engine.submit(asked.request(model, owner_of(request)), prepare))
    if asked.stream:
        return stream(_streamed(job, asked, size, glances, kind))
    if not await ended(job, request):
        return JSONResponse(told(410, "the client has left"), 410)
    return await run_in_threadpool(_whole, job, asked, size, str(request.base_url).rstrip("/"))


def _whole(job: Job, asked: ImagesAsked, size: str, root: str) -> Response:
    """The answer of a request that has ended, which makes files of what it made.

    Raises:
        UnnoiseError: It did not end well; this says why.
    """
    samples, suffix = job.samples(), SUFFIX[asked.output_format]
    facts = {"id": job.id, "seed": job.request.seed, "seconds": job.seconds, "making": job.bare_seconds}
    about = {"unnoise": {**facts, "notes": samples.notes}}
    if asked.response_format == "url":
        data = [{"url": f"{root}/v1/jobs/{job.id}/images/{k}{suffix}"} for k in range(job.request.n)]
    else:
        data = [{"b64_json": text} for text in _encoded(samples, suffix)]
    return JSONResponse({**_head(job, asked, size), "data": data, "usage": USAGE, **about})


def _size(engine: Engine, model: str, size: str) -> str:
    """The size of the model's images.

    Raises:
        BadOption: Another one is asked for, or the model makes no pictures.
    """
    card = engine.shelf.card(model)
    if card.kind == "array":
        raise BadOption(
            f"model: {model} makes samples of shape {card.shape}, which have no picture: ask for them at /v1/jobs"
        )
    if card.kind != "image":
        return "auto"
    own = f"{card.shape[2]}x{card.shape[1]}"
    if size not in ("auto", own):
        raise BadOption(f"size: {model} makes images of {own}, got {size}: leave it out, or say auto")
    return own


def _head(job: Job, asked: ImagesAsked, size: str) -> dict[str, Any]:
    return {
        "created": int(job.made_at), "background": asked.background or "opaque", "output_format": asked.output_format,
        "quality": asked.quality or "auto", "size": size,
    }  # fmt: skip


def _encoded(samples: Samples, suffix: str) -> list[str]:
    """Each image as a file's bytes in base64; of points, one picture of them all."""
    if samples.spec.kind == "points":
        return [base64.b64encode(samples.encode(suffix)).decode()]
    return [base64.b64encode(samples.one(k).encode(suffix)).decode() for k in range(len(samples))]


def _collect(job: Job, most: int, glances: list[Callable[[], Look]]) -> None:
    """Keeps a glance at the newest step where the next partial image is due; called in the thread of the work."""
    due = job.steps and job.step * (most + 1) // job.steps > len(glances)
    glance = job.glance() if due and len(glances) < most else None
    if glance is not None:
        glances.append(glance)


async def _streamed(
    job: Job, asked: ImagesAsked, size: str, glances: list[Callable[[], Look]], kind: str
) -> AsyncIterator[str]:
    """Partial images as events, then the images themselves."""
    sent, head = 0, _head(job, asked, size)
    head["created_at"] = head.pop("created")
    try:
        async with Following(job) as following:
            while True:
                over = job.ended
                for glance in glances[sent:]:
                    picture = await run_in_threadpool(_partial, glance, job.recipe["n"], asked.output_format)
                    name = f"{kind}.partial_image"
                    yield event(name, {"type": name, "b64_json": picture, "partial_image_index": sent, **head})
                    sent += 1
                if over:
                    break
                await following.changed(15.0)
        if job.error is not None:
            yield event("error", {"type": "error", **body_of(job.error), "status": status_of(job.error)})
            return
        for text in await run_in_threadpool(lambda: _encoded(job.samples(), SUFFIX[asked.output_format])):
            done = {"type": f"{kind}.completed", "b64_json": text, "usage": USAGE}
            yield event(f"{kind}.completed", {**done, **head})
    except asyncio.CancelledError:
        job.cancel()
        raise
    finally:
        if not job.ended:
            job.cancel()


def _partial(glance: Callable[[], Look], n: int, output_format: str) -> str:
    """What the samples are estimated to be, as one small picture in base64."""
    return base64.b64encode(picture_of(glance().denoised, output_format)).decode()


def picture_of(tensor: Any, output_format: str = "jpeg") -> bytes:
    """One picture of a batch, without a recipe: an image as it is, several as a grid, points as a scatter plot.

    Args:
        tensor: uint8 of shape (n, C, H, W), or float32 of shape (n, D).
        output_format: png, jpeg or webp.
    """
    from ..pictures.points import scatter

    if tensor.ndim == 4 and tensor.shape[1] in (1, 3, 4):
        image: Image.Image = to_images(tensor)[0] if len(tensor) == 1 else image_grid(tensor)
    elif tensor.ndim == 2 and tensor.shape[1] >= 2:
        image = scatter(tensor.numpy())
    else:
        raise BadOption(f"samples of shape {tuple(tensor.shape[1:])} have no picture")
    buffer = io.BytesIO()
    quality = {} if output_format == "png" else {"quality": 85}
    image.convert("RGB").save(buffer, output_format.upper(), **quality)
    return buffer.getvalue()
