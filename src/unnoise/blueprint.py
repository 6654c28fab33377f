"""What a model is made of, as values: enough to build it again on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
from torch import Tensor

from .codecs.base import Codec, codecs
from .conditioning.regions import RegionConditioning
from .conditioning.text.conditioning import TextConditioning
from .data.base import Spec
from .denoisers.base import Denoiser, denoisers
from .denoisers.learned_variance import LearnedVarianceDenoiser
from .errors import BadOption, IncompatibleParts
from .nn.base import networks
from .process.base import Schedule, schedules
from .registry import Choice


@dataclass(frozen=True)
class Blueprint:
    """The parts of a model.

    Args:
        spec: What one sample is.
        codec: The way into the space that the model works in.
        process: The schedule.
        prediction: What the network predicts, by name.
        sigma_data: Standard deviation of the encoded data.
        learned_variance: Whether the network also learned a variance.
        network: Which network, and its options.
        self_conditioning: Whether the network sees the estimate that it made before.
        text: How it understands words, where it does.
        regions: How it understands what stands where, where it does.
    """

    spec: Spec
    codec: Codec
    process: Schedule
    prediction: str
    sigma_data: float
    learned_variance: bool
    network: Choice
    self_conditioning: bool = False
    text: TextConditioning | None = None
    regions: RegionConditioning | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample of the network's input."""
        shape = self.codec.shape(self.spec.shape)
        return (2 * shape[0], *shape[1:]) if self.self_conditioning else shape

    def build(self, seed: int = 0) -> Denoiser:
        """The denoiser with fresh weights, the same for one seed.

        Raises:
            IncompatibleParts: The parts cannot work together.
        """
        shape = self.codec.shape(self.spec.shape)
        out_shape = (2 * shape[0], *shape[1:]) if self.learned_variance else shape
        entering = self.input_shape
        if self.regions is not None:
            if len(shape) != 3:
                told = f"what the model works on has shape {shape}"
                raise IncompatibleParts(f"conditioning: boxes and maps are conditions of pictures, and {told}")
            entering = (entering[0] + self.regions.planes, *entering[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network = networks[self.network.name](entering, out_shape, self.spec.num_classes, self.network.config)
            except IncompatibleParts as error:
                if told := self.spec.channels_last:
                    raise IncompatibleParts(f"{told} ({str(error).partition(': ')[0]})") from None
                if not self.codec.learned:
                    raise
                made = f"the codec (codec.path) makes latents of shape {shape} of data of shape {self.spec.shape}"
                scale = f"{self.spec.shape[-1] // shape[-1]} times as large in the data"
                raise IncompatibleParts(
                    f"{made}, which the network cannot take: {error} (sizes of latents, {scale})"
                ) from None
            if self.regions is not None:
                network = self.regions.around(network)
            if self.text is not None:
                network = self.text.around(network)
        denoiser = denoisers[self.prediction](network, self.process, self.sigma_data, self.self_conditioning)
        return LearnedVarianceDenoiser(denoiser) if self.learned_variance else denoiser

    def describe(self) -> dict[str, Any]:
        """Plain values that `Blueprint.of` reads."""
        return {
            "data": {"kind": self.spec.kind, "shape": list(self.spec.shape)},
            "codec": self.codec.describe(),
            "process": schedules.describe(self.process),
            "denoiser": {
                "name": self.prediction,
                "sigma_data": self.sigma_data,
                "learned_variance": self.learned_variance,
                **({"self_conditioning": True} if self.self_conditioning else {}),
            },
            "network": networks.describe(self.network),
            "conditioning": {
                **({"label": list(self.spec.class_names)} if self.spec.num_classes else {}),
                **({"text": self.text.describe()} if self.text is not None else {}),
                **({} if self.regions is None else self.regions.describe()),
            },
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]] | None = None) -> Blueprint:
        """The blueprint that `describe` wrote.

        Args:
            values: What it wrote.
            parts: What is kept in files beside the description, such as a tokenizer, by the names of the parts.

        Raises:
            ModelFolderError: A file does not hold what it should.
            BadOption: Something is missing or wrong.
            UnknownName: A part is not known here.
        """
        try:
            data, denoiser = values["data"], values["denoiser"]
            names = tuple(str(name) for name in values["conditioning"].get("label", ()))
            words = values["conditioning"].get("text")
            return cls(
                Spec(data["kind"], tuple(index(size) for size in data["shape"]), names),
                codecs.build(values["codec"], "codec"),
                schedules.build(values["process"], "process"),
                denoiser["name"],
                float(denoiser["sigma_data"]),
                bool(denoiser["learned_variance"]),
                networks.build(values["network"], "network"),
                bool(denoiser.get("self_conditioning", False)),
                None if words is None else TextConditioning.of(words, (parts or {})["text"]),
                RegionConditioning.of(values["conditioning"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BadOption(f"the description of the model lacks {error}") from None
