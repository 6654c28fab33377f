"""An adapter: what fine-tuning has learned, apart from the model that it began with; one small safetensors file.

For each adapted layer stand `LAYER.lora_down.weight`, `LAYER.lora_up.weight` and `LAYER.alpha`, shaped as everywhere (`down` has
the layer's kernel, `up` is 1 x 1); weights that were trained whole stand as `whole/WEIGHT`, and tables of labels that are others
than the model's as `labels/WEIGHT`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ModelFolderError, ShapeError
from .files import write_atomically
from .nn.lora import CHILD, Factors, check_factors

FORMAT = 1
ADAPTER_FILE = "lora.safetensors"
WHOLE, TABLE = "whole/", "labels/"
_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


@dataclass(frozen=True)
class Adapter:
    """What was learned beside a model.

    Args:
        factors: The two matrices of each adapted layer, by its name.
        whole: Weights that were trained themselves, by name.
        tables: Weights with a row for each label, where the labels are no longer those of that model.
        base: SHA-256 of the weights that it was learned beside.
        base_labels: The labels of that model.
        labels: Those of the model that it makes of it.
        facts: More about it, plain values: rank, alpha, the patterns of the layers.
    """

    factors: Mapping[str, Factors]
    whole: Mapping[str, Tensor]
    tables: Mapping[str, Tensor]
    base: str
    base_labels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of its file."""
        from safetensors.torch import save

        held = {WHOLE: self.whole, TABLE: self.tables}
        tensors = {
            f"{prefix}{name}": value.detach().cpu().contiguous()
            for prefix, values in held.items()
            for name, value in values.items()
        }
        for name, each in self.factors.items():
            tensors[name + _DOWN] = each.down.detach().cpu().contiguous()
            tensors[name + _UP] = each.up.detach().cpu().contiguous()
            tensors[name + _ALPHA] = torch.tensor(each.scale * each.up.shape[1], dtype=torch.float64)
        about = {
            "format": FORMAT,
            "base": self.base,
            "base_labels": list(self.base_labels),
            "labels": list(self.labels),
            **self.facts,
        }
        # One entry: safetensors writes several in an order that differs from call to call.
        return save(tensors, metadata={"unnoise": json.dumps(about)})

    @property
    def digest(self) -> str:
        """SHA-256 of its file, 64 hexadecimal digits."""
        return hashlib.sha256(self.encode()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Writes its file.

        Raises:
            OSError: The disk is full, or may not be written to; the old file stays.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, self.encode())
        return target

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """The adapter in a file, in a model folder, or in the run folder around it.

        Raises:
            ModelFolderError: There is none, or it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        file = _file(Path(path))
        try:
            content = file.read_bytes()
            about = _about(content)
            tensors = load(content)
            factors = {name: _factors(tensors, name) for name in _layers(tensors)}
            return cls(
                factors,
                _below(tensors, WHOLE),
                _below(tensors, TABLE),
                str(about.pop("base")),
                tuple(map(str, about.pop("base_labels"))),
                tuple(map(str, about.pop("labels"))),
                {key: value for key, value in about.items() if key != "format"},
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelFolderError(f"{file} is no adapter that can be read: {str(error).splitlines()[0]}") from None

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], scale: float, **about: Any) -> Adapter:
        """The adapter that stands among the weights that a network with adapters has learned.

        Args:
            weights: By the network's own names; those that are no part of an adapter are taken whole.
            scale: alpha / rank.
            about: The other fields.
        """
        inner = f".{CHILD}.0."
        layers = [name.partition(inner)[0] for name in weights if name.endswith(f"{inner}down.weight")]
        factors = {
            name: Factors(weights[f"{name}{inner}down.weight"], weights[f"{name}{inner}up.weight"], scale)
            for name in layers
        }
        return cls(factors, {name: value for name, value in weights.items() if inner not in name}, **about)

    def apply(self, weights: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """A model's weights with the adapter merged into them.

        Args:
            weights: By the network's own names, without adapters.
            strength: 0 leaves them as they are, 1 is what was learned. Tables of labels are taken as they are.

        Raises:
            ShapeError: The adapter is that of another network; the first difference is named.
        """
        check_factors(self.factors, weights)
        merged = dict(weights)
        for name, each in self.factors.items():
            weight = weights[f"{name}.weight"]
            merged[f"{name}.weight"] = (weight.double() + strength * each.delta().to(weight.device)).to(weight.dtype)
        for name, value in self.whole.items():
            _check_whole(name, value.shape, weights)
            old = weights[name]
            merged[name] = torch.lerp(old.double(), value.to(old.device).double(), strength).to(old.dtype)
        for name, value in self.tables.items():
            if name in weights or self.base_labels:
                _check_whole(name, (*weights.get(name, value).shape[:1], *value.shape[1:]), weights)
            merged[name] = value
        return merged

    @property
    def grows(self) -> bool:
        """Whether the model that it makes has other labels than the one it began with."""
        return self.labels != self.base_labels


def _check_whole(name: str, shape: tuple[int, ...], weights: Mapping[str, Tensor]) -> None:
    if name not in weights:
        raise ShapeError(f"it holds {name}, which the network does not have")
    if weights[name].shape != shape:
        raise ShapeError(f"it holds {name} as {tuple(shape)}, which the network has as {tuple(weights[name].shape)}")


def adapter_spec(text: str, strength: float = 1.0) -> tuple[str, float]:
    """The path and strength in PATH or PATH:STRENGTH.

    Args:
        text: As a person writes it.
        strength: Where they say none.
    """
    path, colon, number = text.rpartition(":")
    try:
        return (path, float(number)) if colon and path else (text, strength)
    except ValueError:  # a colon of the path
        return text, strength


def _file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise ModelFolderError(
                f"there is no adapter at {path}: expected a {ADAPTER_FILE}, or the run that made one"
            )
        return path
    for place in (path / ADAPTER_FILE, path / "model" / ADAPTER_FILE):
        if place.is_file():
            return place
    raise ModelFolderError(f"there is no {ADAPTER_FILE} in {path}: it is made by a run with `--from MODEL --lora RANK`")


def _about(content: bytes) -> dict[str, Any]:
    """What the header of a safetensors file says of an adapter."""
    size = int.from_bytes(content[:8], "little")
    about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["unnoise"])
    if about["format"] != FORMAT:
        raise ValueError(f"it has format {about['format']}, this unnoise reads format {FORMAT}: use another version")
    return dict(about)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _layers(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN) and not name.startswith((WHOLE, TABLE))
    ]


def _factors(tensors: Mapping[str, Tensor], name: str) -> Factors:
    up = tensors[name + _UP]
    return Factors(tensors[name + _DOWN], up, float(tensors[name + _ALPHA]) / up.shape[1])
