"""Weights that a person has on disk: where they are looked for, and how they are read. Nothing is ever downloaded."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import BadOption, DataError
from ...files import cache_folder


def weights_folder() -> Path:
    """Where a person puts weights: `weights` in the user's cache."""
    return cache_folder() / "weights"


def torch_hub_folder() -> Path:
    """Where torch hub and the libraries that use it keep downloaded checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def hugging_face_folder(name: str) -> list[Path]:
    """The folders of a model, such as "facebook/dinov2-large", that Hugging Face's own tools have downloaded."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return sorted((hub / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))


def first_there(places: Sequence[Path], what: str) -> Path:
    """The first of some places at which something stands.

    Args:
        places: Where to look; the last is named in the message as the place to put it.
        what: What is looked for, as the subject of a sentence.

    Raises:
        DataError: Nothing stands at any.
    """
    for place in places:
        if place.exists():
            return place
    raise DataError(
        f"{what} not on this machine, and unnoise downloads nothing: put it at {places[0]}, or name it by the option path"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a file that `torch.save` wrote; no code in it is ever run.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} holds more than tensors, and loading it could run code: save its weights alone"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no whole file of weights: {str(error).splitlines()[0]}") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path} holds no table of tensors by name: give the state dictionary of the network")
    return dict(found)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Gives a network its weights, in float32, and readies it to be asked.

    Raises:
        DataError: A weight is missing or has another shape.
    """
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in tensors:
            raise DataError(f"{path} has no weight {name!r}: it is of another network")
        if tensors[name].shape != value.shape:
            shapes = f"shape {tuple(tensors[name].shape)} and not {tuple(value.shape)}"
            raise DataError(f"{path}: the weight {name!r} has {shapes}: it is of another network")
    network.load_state_dict({name: tensors.get(name, value) for name, value in wanted.items()})
    network.to(torch.float32).eval().requires_grad_(False)


def asked(network: Callable[[Tensor], Tensor], x: Tensor, at_once: int = 32) -> Tensor:
    """What a network says of samples, a few at once so that memory stays small, shape (B, dim), on the CPU.

    Args:
        network: Takes some of the samples as they are.
        x: Shape (B, ...), B at least 0.
        at_once: How many samples.
    """
    with torch.no_grad():
        return torch.cat([network(some).to("cpu", torch.float32) for some in x.split(at_once)])


def check_device(device: str) -> str:
    """A device that torch has.

    Raises:
        BadOption: It has none of that name.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadOption(f"device: {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device
