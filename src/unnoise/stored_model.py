"""A model and its folder: weights and what they belong to, kept, loaded, merged and moved."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from .adapter import ADAPTER_FILE, Adapter
from .assembly import built, found, joined, rounded
from .blueprint import Blueprint
from .conditioning.text.network import apart
from .data.base import Spec
from .denoisers.base import Denoiser
from .errors import BadOption, IncompatibleParts, ModelFolderError, ShapeError
from .model_folder import described_parts, digest, encode, read_tuned, write_folder
from .objectives.mse import preconditioned
from .options import plain
from .placement import placed
from .precision import Precision, dtype_of
from .sampling import SamplingSettings
from .shipped import READY
from .steering import Helps

STORED = "stored"
"""What `trained` says of the numbers in a folder whose weights are not kept in float32."""


class StoredModel:
    """A denoiser with all that is needed to sample from it, and the folder that holds it.

    Args:
        blueprint: What it is made of.
        denoiser: The trained denoiser.
        sampling: How it is sampled when nothing else is said.
        trained: How it came to be, as plain values.
        path: The folder that it was loaded from.
        adapter: What was learned beside the model that it began with, where it was; it is saved beside the weights.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        denoiser: Denoiser,
        sampling: SamplingSettings | None = None,
        trained: Mapping[str, Any] | None = None,
        path: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.blueprint = blueprint
        self.denoiser = denoiser.eval()
        self.sampling = SamplingSettings() if sampling is None else sampling
        self.trained = dict(trained or {})
        self.path = path
        self.adapter = adapter
        self.loras: list[dict[str, Any]] = []
        """The adapters that `with_lora` merged in: path and strength of each."""
        self.notes: list[str] = []
        self.tuned: dict[int, dict[str, Any]] = {}
        """What `unnoise tune` has found, by budget of network calls."""
        self._hash: str | None = None
        self._bytes: int | None = None
        self._source: Self | None = None
        self._helps = Helps(blueprint, self.denoiser, type(self).load)

    @property
    def spec(self) -> Spec:
        """What one sample is."""
        return self.blueprint.spec

    @property
    def hash(self) -> str:
        """SHA-256 of the description and the weights, 64 hexadecimal digits."""
        if self._hash is None:
            described, _ = encode(self._values(), *self._files())
            self._hash = hashlib.sha256(described.encode()).hexdigest()
        return self._hash

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the network's weights alone, as it stands in `model.yaml`."""
        return digest(self._files()[0])

    def parameters(self) -> int:
        """The number of weights."""
        return sum(p.numel() for p in self.denoiser.parameters())

    def memory(self) -> int:
        """Bytes of all weights that it holds, with those of what has helped to guide it so far."""
        if self._bytes is None:  # counting them takes a millisecond
            codec = self.blueprint.codec
            held = [
                *self.denoiser.parameters(),
                *self.denoiser.buffers(),
                *(codec.weights().values() if codec.learned else ()),
            ]
            self._bytes = sum(each.nbytes for each in held)
        return self._bytes + self._helps.memory() + (0 if self._source is None else self._source.memory())

    def _values(self) -> dict[str, Any]:
        return {**self.blueprint.describe(), "sampling": plain(self.sampling), "trained": self.trained}

    def describe(self) -> dict[str, Any]:
        """The description as plain values, without what it says of the network's weights."""
        return {**self._values(), **described_parts(self._files()[1])}

    def _weights(self) -> dict[str, Tensor]:
        network = preconditioned((self._source or self).denoiser).network
        assert network is not None
        return network.state_dict()

    def _files(self) -> tuple[Mapping[str, Tensor], dict[str, Mapping[str, Tensor]]]:
        """The network's weights, and what is learned or kept beside it, as they stand in the model's folder."""
        blueprint, weights = (self._source or self).blueprint, self._weights()
        parts: dict[str, Mapping[str, Tensor]] = {}
        if blueprint.codec.learned:
            parts["codec"] = blueprint.codec.weights()
        if blueprint.text is not None:
            weights, encoder = apart(weights)
            parts["text"] = blueprint.text.kept(encoder)
        if self.trained.get(STORED) == "bf16":
            return rounded(weights), {name: rounded(each) for name, each in parts.items()}
        return weights, parts

    def compact(self) -> Self:
        """A new model whose weights are rounded to bfloat16, so that its folder is half as large.

        Each weight keeps eight bits of precision, and pictures move by about a grey level. It computes as before.

        Raises:
            IncompatibleParts: It was trained as an adapter, which belongs to its base.
        """
        if self.adapter is not None:
            raise IncompatibleParts("the model holds an adapter: merge it first, with `unnoise lora merge`")
        weights, parts = self._files()
        values = {**self._values(), "trained": {**self.trained, STORED: "bf16"}}
        kept = {name: rounded(each) for name, each in parts.items()}
        return type(self)(*joined(values, rounded(weights), kept, str(self.path)), path=self.path)

    def save(self, path: str | Path) -> Path:
        """Writes the model's folder; a model that stands there is replaced at once and whole.

        Raises:
            OSError: The folder cannot be written; a model that stands there stays.
        """
        folder = Path(path)
        if self.adapter is not None:
            self.adapter.save(folder / ADAPTER_FILE)
        write_folder(folder, self._values(), *self._files())
        return folder

    @classmethod
    def load(cls, path: str | Path = READY) -> Self:
        """The model in a folder: one that `save` wrote, the run folder around it, or "ready", which comes with unnoise.

        Where the model of a run is damaged, it is made again from the run's newest whole checkpoint, and a note says so.

        Raises:
            ModelFolderError: There is no model, or it is damaged or of another format.
        """
        parts, folder, notes = found(path)
        model = cls(*parts, str(path))
        model.notes += notes
        try:
            model.tuned = read_tuned(folder)
        except ModelFolderError as error:
            model.notes.append(str(error))
        return model

    def with_lora(self, lora: str | Path | Adapter, strength: float = 1.0) -> Self:
        """A new model with what an adapter has learned merged into it; several may be merged one after another.

        Args:
            lora: Its file, the folder of the run that made it, or the adapter itself.
            strength: 0 is none of it, 1 what was learned; more, or less than 0, exaggerates or turns it round.

        Raises:
            ModelFolderError: There is no adapter, or it fits another network; the first difference is named.
            BadOption: The strength is not a number, or the adapter has labels of its own that do not go with this model's.
        """
        if not math.isfinite(strength):
            raise BadOption(f"strength: expected a number, got {strength}")
        adapter = lora if isinstance(lora, Adapter) else Adapter.load(lora)
        name, own = "the adapter" if isinstance(lora, Adapter) else str(lora), self.spec.class_names
        if adapter.grows and own != adapter.base_labels:
            raise BadOption(
                f"{name} has labels of its own, learned beside {_told(adapter.base_labels)}; here are {_told(own)}"
            )
        spec = replace(self.spec, class_names=adapter.labels if adapter.grows else own)
        blueprint = replace(self.blueprint, spec=spec)
        try:
            weights = adapter.apply(self._weights(), strength)
        except ShapeError as error:
            raise ModelFolderError(f"{name} is the adapter of another network: {error}") from None
        denoiser = built(blueprint, weights).to(next(self.denoiser.parameters()).device)
        merged = [*self.trained.get("loras", ()), {"sha256": adapter.digest, "strength": float(strength)}]
        trained = {name: value for name, value in self.trained.items() if name != STORED} | {"loras": merged}
        model = type(self)(blueprint, denoiser, self.sampling, trained, self.path)
        model.loras = [
            *self.loras,
            {"path": None if isinstance(lora, Adapter) else str(lora), "strength": float(strength)},
        ]
        model.notes = list(self.notes)
        if not self.loras and adapter.base != self.weights_hash:
            made = f"{name} was learned beside another model (weights {adapter.base[:12]})"
            model.notes.append(f"{made}: it may do something else here")
        return model

    def on(self, device: str | torch.device = "auto", precision: Precision = "auto") -> Self:
        """The same model where it samples fastest; itself where it stands there already.

        Large networks compute in bfloat16 where the hardware is faster with it, which moves pictures by about a grey level;
        samples remember it. Saving gives the weights as they were.

        Args:
            device: "auto", "cpu", "cuda", "cuda:1" or "mps".
            precision: "fp32", "bf16", or "auto" for bf16 from 5 GFLOP a sample on, where it is faster.

        Raises:
            BadOption: There is no such device here, or no such precision.
        """
        source = self._source or self
        denoiser = placed(source.denoiser, self.blueprint.input_shape, device, precision)
        if denoiser is source.denoiser:
            return source
        inner = preconditioned(denoiser).network
        assert inner is not None
        dtype = dtype_of(inner) or torch.float32
        codec = source.blueprint.codec.on(next(inner.parameters()).device, dtype)
        blueprint = replace(source.blueprint, codec=codec)
        moved = type(self)(blueprint, denoiser, self.sampling, self.trained, self.path, self.adapter)
        moved.loras, moved.notes, moved.tuned = self.loras, self.notes, self.tuned
        moved._hash, moved._source = self.hash, source
        return moved


def _told(labels: Sequence[str]) -> str:
    return f"labels {', '.join(labels)}" if labels else "no labels"
