"""A model on disk: one folder with a description in YAML and weights in safetensors; reading it never runs code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ModelFolderError
from .files import write_atomically

FORMAT = 1
MODEL_FILE = "model.yaml"
TUNED_FILE = "tuned.json"


def encode(values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[str, bytes, str]:
    """A model as the text and the bytes of its two files, and the name of the second.

    Args:
        values: The description, plain values.
        weights: By the network's own names.
    """
    import yaml
    from safetensors.torch import save

    content = save({name: value.cpu().contiguous() for name, value in weights.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"network-{digest[:12]}.safetensors"
    whole = {"format": FORMAT, **values, "weights": {"file": file, "sha256": digest}}
    return str(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)), content, file


def write_folder(folder: Path, values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes a model; one that stands there is replaced at once and whole.

    The weights have their hash in their name, so the description, which is replaced last, always names a whole file.

    Raises:
        OSError: The folder cannot be written; a model that stands there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description, content, file = encode(values, weights)
    write_atomically(folder / file, content)
    write_atomically(folder / MODEL_FILE, description.encode())
    for old in folder.glob("network-*.safetensors"):
        if old.name != file:
            old.unlink(missing_ok=True)


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a model, without its weights.

    Raises:
        ModelFolderError: There is no model, or it is damaged or of another format.
    """
    import yaml

    file = folder / MODEL_FILE
    if not file.is_file():
        raise ModelFolderError(
            f"there is no model at {folder}: expected a folder with a {MODEL_FILE}, as `unnoise train` makes"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or "format" not in values:
            raise ModelFolderError(f"{file} is damaged: it is not the description of a model")
        if values["format"] != FORMAT:
            raise ModelFolderError(
                f"{file} has format {values['format']}, this unnoise reads format {FORMAT}: use another version"
            )
        return values
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ModelFolderError(f"the model at {folder} is damaged: {str(error).splitlines()[0]}") from None


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights of a model.

    Raises:
        ModelFolderError: There is no model, or it is damaged or of another format.
    """
    from safetensors.torch import load

    values = read_description(folder)
    try:
        content = (folder / values["weights"]["file"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != values["weights"]["sha256"]:
            raise ModelFolderError(f"{folder / values['weights']['file']} is damaged: its checksum does not fit")
        return values, load(content)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the model at {folder} is damaged: {str(error).splitlines()[0]}") from None


def model_place(path: str | Path) -> Path:
    """The folder that holds the description of a model: this one, or the model within a run.

    Raises:
        ModelFolderError: There is none.
    """
    for folder in (Path(path), Path(path) / "model"):
        if (folder / MODEL_FILE).is_file():
            return folder
    raise ModelFolderError(
        f"there is no model at {path}: expected a folder with a {MODEL_FILE}, as `unnoise train` makes"
    )


def write_tuned(folder: Path, entries: Mapping[int, Mapping[str, Any]]) -> Path:
    """Writes the tuned samplings of a model, by their budget of network calls, beside it.

    Raises:
        OSError: The folder cannot be written.
    """
    import json

    path = folder / TUNED_FILE
    whole = {"format": FORMAT, "tuned": {str(calls): dict(entry) for calls, entry in sorted(entries.items())}}
    write_atomically(path, (json.dumps(whole, indent=1) + "\n").encode())
    return path


def read_tuned(folder: Path) -> dict[int, dict[str, Any]]:
    """The tuned samplings beside a model, by their budget of network calls; none where there is no file.

    Raises:
        ModelFolderError: The file is damaged.
    """
    import json

    path = folder / TUNED_FILE
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        entries = {int(calls): dict(entry) for calls, entry in values["tuned"].items()}
        if any({"model", "sampler", "times"} - set(entry) for entry in entries.values()):
            raise ValueError("an entry is not whole")
        return entries
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}): delete it, and tune again") from None
