"""`/v1/images/edits`: pictures made partly anew, as OpenAI's clients send them, in a form with files."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile

from ..editing.beginnings import PICTURE
from ..engine.engine import Engine
from ..errors import BadOption
from .images import answered
from .schemas import ImagesAsked
from .settings import ServingSettings

MOST_PICTURES = 64


class EditAsked(ImagesAsked):
    """A picture, or several, and what is to become of each; the fields of a form."""

    model_config = ConfigDict(json_schema_extra={"examples": []})
    input_fidelity: str | None = None


def router(engine: Engine, settings: ServingSettings) -> APIRouter:
    """The routes, on an engine."""
    routes = APIRouter(tags=["OpenAI images"])

    @routes.post("/v1/images/edits", summary="Make pictures partly anew", openapi_extra={"requestBody": _described()})
    async def edit(request: Request) -> Response:
        """Noises each picture to `strength`, and samples from there; one picture gives n images, several give one each.

        The form is OpenAI's; `extra_body` of its Python client takes what unnoise can be told besides: strength, seed, label, ...
        """
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise BadOption("image: send it as a file of a form (multipart/form-data), as OpenAI's clients do")
        limits = {"max_files": MOST_PICTURES, "max_fields": 1000, "max_part_size": settings.most_bytes}
        async with request.form(**limits) as form:
            asked = await _asked(form)
        return await answered(engine, request, asked, "image_edit")

    return routes


async def _asked(form: FormData) -> EditAsked:
    """What a form asks for.

    Raises:
        BadOption: There is no picture, or a mask.
        RequestValidationError: A field is none, or is out of its range.
    """
    if "mask" in form or "markup" in form:
        raise BadOption("mask: only whole pictures are edited here, by their strength: leave it out")
    told: dict[str, Any] = {}
    for key in form:  # `image` is one picture, `image[]` each of several, `sampler[eta]` an option of a part
        name, within = _parted(key)
        found = [await _value(name, each) for each in form.getlist(key)]
        if within:
            held = told.setdefault(name, {})
            if not isinstance(held, dict):
                raise BadOption(f"{name}: it is said twice, as a whole and in parts")
            held[within] = found[-1]
        elif name in told:
            raise BadOption(f"{name}: it is said twice")
        else:
            told[name] = found if key != name or (name == "image" and len(found) > 1) else found[-1]
    if not told.get("image"):
        raise BadOption("image: send the picture that is to be edited, as a file of the form")
    if isinstance(told["image"], list) and len(told["image"]) == 1:
        told["image"] = told["image"][0]
    elif isinstance(told["image"], list):
        told.setdefault("n", len(told["image"]))
    try:
        return EditAsked.model_validate(told)
    except ValidationError as error:
        places = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(places) from None


def _parted(key: str) -> tuple[str, str]:
    """The name of a field, and of what within it: of `sampler[eta]` sampler and eta, of `image[]` image and nothing."""
    found = re.fullmatch(r"(\w+)\[(\w*)\]", key)
    return (found[1], found[2]) if found else (key, "")


async def _value(name: str, given: UploadFile | str) -> Any:
    """A field of a form as JSON would have it: files in base64, and what is no text as what it spells."""
    if isinstance(given, UploadFile):  # of whatever kind of picture: that is seen when it is read
        return PICTURE + base64.b64encode(await given.read()).decode()
    field = EditAsked.model_fields.get(name)
    if field is None or field.annotation is str or str in get_args(field.annotation):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given


def _described() -> dict[str, Any]:
    """The form, for the page that lists the routes."""
    told = EditAsked.model_json_schema()
    one = {"type": "string", "format": "binary", "description": "the picture; several as image[]"}
    properties = {**told["properties"], "image": one}
    schema = {"type": "object", "properties": properties, "required": ["image"]}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
