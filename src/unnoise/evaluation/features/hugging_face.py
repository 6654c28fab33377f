"""Folders of weights in the layout of Hugging Face: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ...errors import DataError
from .weights import first_there, hugging_face_folder, read_weights, weights_folder

WEIGHTS = "model.safetensors", "pytorch_model.bin"


def find_model(path: str, model: str) -> Path:
    """The folder of a model.

    Args:
        path: A folder, or the file of weights in it; "" looks in the user's cache of unnoise, then in Hugging Face's.
        model: Its name there, such as "facebook/dinov2-large".

    Raises:
        DataError: There is none.
    """
    places = (
        [Path(path).expanduser()]
        if path
        else [
            weights_folder() / model.rpartition("/")[2],
            *hugging_face_folder(model),
        ]
    )
    found = first_there(places, f"the folder of {path or model} with config.json and {WEIGHTS[0]} is")
    return found.parent if found.is_file() else found


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """The settings, the tensors and the file of weights of a model.

    Raises:
        DataError: One of the files is missing or damaged.
    """
    config = folder / "config.json"
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{config} cannot be read ({error.strerror}): it stands beside the weights where they came from"
        ) from None
    except ValueError:
        raise DataError(f"{config} is no JSON: fetch it again from where the weights came from") from None
    if not isinstance(settings, dict):
        raise DataError(f"{config} holds no settings by name: fetch it again from where the weights came from")
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), folder / WEIGHTS[0])
    return settings, read_weights(file), file


def setting(settings: Mapping[str, Any], name: str, default: Any, where: Path) -> Any:
    """One of the settings, of the type of its default.

    Raises:
        DataError: It has another type.
    """
    value = settings.get(name, default)
    if type(default) is float and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise DataError(f"{where / 'config.json'}: {name} is {value!r}, and only a value like {default!r} can be used")
    return cast(Any, value)


def renamed(tensors: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Tensors under other names.

    Args:
        tensors: By the names in the file.
        names: Patterns and what they become, tried in this order; tensors that none matches are left out.
    """
    found = {}
    for name, tensor in tensors.items():
        for pattern, new in names:
            if match := re.fullmatch(pattern, name):
                found[match.expand(new)] = tensor
                break
    return found
