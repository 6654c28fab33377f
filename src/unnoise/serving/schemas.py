"""What clients may ask, as schemas; options of the parts come from their own declarations."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from ..engine.request import Request
from ..errors import nearest
from ..guidance.base import guidances
from ..options import json_schema
from ..request import Blend
from ..samplers.base import samplers
from ..samplers.grids import GRIDS


def _sampler_schema() -> dict[str, Any]:
    told = samplers.json_schema()
    told["anyOf"].append(
        {"const": "tuned", "description": "what `unnoise tune` has found for this model", "type": "string"}
    )
    return told


def grid_schema() -> dict[str, Any]:
    """Which times may be asked for: a grid by name, one with its options, or the times themselves."""
    named = {"type": "object", "properties": {"name": {"type": "string", "enum": sorted(GRIDS)}}, "required": ["name"]}
    times = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1}
    return {"anyOf": [{"type": "string", "enum": sorted(GRIDS)}, named, times]}


SamplerSpec = Annotated[Any, WithJsonSchema(_sampler_schema())]
GuidanceSpec = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1000}, *guidances.json_schema()["anyOf"]]}),
]
GridSpec = Annotated[Any, WithJsonSchema(grid_schema())]
BlendSpec = Annotated[Any, WithJsonSchema(json_schema(Blend))]
Label = str | int | list[str | int | None] | None
Words = str | list[str | None] | None
Beginning = str | list[str] | list[float] | list[list[float]] | None
SIZE = re.compile(r"^(auto|\d{1,5}x\d{1,5})$")


def _size(text: str) -> str:
    if not SIZE.fullmatch(text):
        raise ValueError("expected auto or WIDTHxHEIGHT such as 64x64")
    return text


class Strict(BaseModel):
    """A body whose every name is known."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if isinstance(values, dict):
            names = [field.alias or name for name, field in cls.model_fields.items()]
            for name in values:
                if name not in names and cls.model_config.get("extra") == "forbid":
                    raise ValueError(f"{name}: there is no such option{nearest(name, names)}")
        _check_text(values)
        return values


def _check_text(value: Any) -> None:
    """Refuses text that cannot be written down, which JSON can spell."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("body: text holds half a character (a lone surrogate)") from None
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_text(key)
            _check_text(each)
    elif isinstance(value, list):
        for each in value:
            _check_text(each)


class Asked(Strict):
    """What samples are asked for."""

    model: str | None = Field(None, description="which model, see /v1/models; may be left out where there is one")
    n: int = Field(1, ge=1, description="how many")
    label: Label = Field(None, description="a class by name or number: one for all, or one for each")
    negative_prompt: Words = Field(None, description="words to push away from, where guidance pushes")
    boxes: Words = Field(
        None, description="what stands where, of models that learned boxes: `cat 0.1 0.2 0.5 0.6; ...`"
    )
    map: Words = Field(
        None, description="a label map of models that learned some: data:image/png;base64,... of class numbers"
    )
    sampler: SamplerSpec = Field(None, description="how to step; the model's own by default")
    embedded_guidance: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="the scale told to a model that guidance was distilled into; 1 by default",
    )
    grid: GridSpec = Field(None, description="at which times; the model's own by default")
    first: int = Field(0, ge=0, description="index of the first sample")
    blend: BlendSpec = Field(None, description="with what other noise that of every sample is mixed")
    image: Beginning = Field(
        None, description="a picture that samples begin from, data:image/png;base64,...: one for all, or one for each"
    )
    strength: float | None = Field(
        None, ge=0, le=1, description="how much of the picture is made anew: 0 nothing, 1 all of it; 0.6 by default"
    )
    batch_size: int | None = Field(None, ge=1, description="samples at a time; chosen by their size by default")
    priority: int = Field(0, ge=-100, le=100, description="higher ones begin first")
    strict: bool = Field(False, description="share no network calls: the bytes are those of `unnoise sample`")
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False, description="seconds until it is given up")


class JobAsked(Asked):
    """Samples that are made while the client does something else."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"n": 4, "label": 3, "steps": 20, "guidance": 2.0, "seed": 7},
                {"n": 1, "sampler": {"name": "ddim", "eta": 1.0}, "steps": 50, "strict": True},
            ]
        }
    )
    prompt: Words = Field(None, description="words, for all or for each, of models that learned some")
    steps: int | None = Field(None, ge=1, description="steps from noise to data; the model's own by default")
    guidance: GuidanceSpec = Field(
        None, description="the scale (1 is off, 0 unconditional), or a rule with its options"
    )
    seed: int = Field(0, description="sample k of a seed is the same in any request")
    keep_steps: bool = Field(False, description="keep the noisy samples and the estimates of every step, too")
    durable: bool = Field(True, description="make it even if the server is killed and started anew meanwhile")

    def request(self, model: str, owner: str) -> Request:
        """As the engine takes it."""
        return Request(**{**self.model_dump(), "model": model}, owner=owner)


class ImagesAsked(Asked):
    """Images as OpenAI's clients ask for them, and what else unnoise can be told."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a red heart", "n": 1, "size": "auto", "seed": 7, "guidance_scale": 4.0},
                {"prompt": "", "label": "3", "n": 4, "num_inference_steps": 20, "stream": False},
            ]
        }
    )
    prompt: str | None = Field(None, description="words; leave them empty for models that know labels alone")
    size: Annotated[str, AfterValidator(_size), WithJsonSchema({"type": "string", "pattern": SIZE.pattern})] = Field(
        "auto", description="auto, or WIDTHxHEIGHT of the model's images"
    )
    response_format: Literal["b64_json", "url"] = Field(
        "b64_json", description="the images themselves, or where they are"
    )
    output_format: Literal["png", "jpeg", "webp"] = Field("png", description="only png is the same bytes as on disk")
    stream: bool = Field(False, description="send partial images while they are made, by server-sent events")
    partial_images: int = Field(0, ge=0, le=100, description="how many, spread evenly over the steps")
    quality: str | None = Field(None, description="accepted and not used, as are the ones below")
    background: str | None = None
    moderation: str | None = None
    output_compression: int | None = None
    style: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    seed: int | None = Field(None, description="drawn if it is not said; the answer tells it")
    num_inference_steps: int | None = Field(
        None, ge=1, description="steps from noise to data; the model's own by default"
    )
    steps: int | None = Field(None, ge=1, description="the same")
    guidance_scale: float | None = Field(None, ge=0, le=1000, description="the scale of classifier-free guidance")
    guidance: GuidanceSpec = Field(None, description="the same, or a rule with its options")

    def request(self, model: str, owner: str) -> Request:
        """As the engine takes it."""
        names = ("n", "label", "negative_prompt", "boxes", "map", "sampler", "grid", "first", "blend", "image",
                 "strength", "embedded_guidance", "batch_size", "priority", "strict", "timeout")  # fmt: skip
        told = {name: getattr(self, name) for name in names}
        return Request(
            model,
            **told,
            prompt=self.prompt if self.prompt and self.prompt.strip() else None,
            steps=self.num_inference_steps if self.steps is None else self.steps,
            guidance=self.guidance_scale if self.guidance is None else self.guidance,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            owner=owner,
        )
