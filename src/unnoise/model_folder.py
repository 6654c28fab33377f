"""A model on disk: one folder with a description in YAML and weights in safetensors; reading it never runs code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ModelFolderError
from .files import write_atomically
from .shipped import comes_with_unnoise, folder_of

FORMAT = 1
MODEL_FILE = "model.yaml"
TUNED_FILE = "tuned.json"
_HASHED = re.compile(r"[a-z_]+-[0-9a-f]{12}\.safetensors")


Tensors = Mapping[str, Tensor]


def digest(weights: Tensors) -> str:
    """SHA-256 of weights as a model's folder holds them, 64 hexadecimal digits."""
    return _file("", weights)[0]["sha256"]


def _file(name: str, weights: Tensors) -> tuple[dict[str, str], bytes]:
    """What the description says of a file of weights, and its bytes. Its hash is in its name."""
    from safetensors.torch import save

    content = save({key: value.cpu().contiguous() for key, value in weights.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": f"{name}-{sha256[:12]}.safetensors", "sha256": sha256}, content


def described_parts(parts: Mapping[str, Tensors]) -> dict[str, Any]:
    """What a description says of the weights beside the network's; nothing where there are none."""
    return {"parts": {name: _file(name, each)[0] for name, each in parts.items()}} if parts else {}


def encode(
    values: Mapping[str, Any], weights: Tensors | None = None, parts: Mapping[str, Tensors] | None = None
) -> tuple[str, dict[str, bytes]]:
    """A model as the text of its description, and the bytes of its files of weights by their names.

    Args:
        values: The description, plain values.
        weights: Of the network, by its own names; None where there is none, as beside an autoencoder.
        parts: Those of whatever else was learned, such as a codec, by the names of these parts.
    """
    import yaml

    whole: dict[str, Any] = {"format": FORMAT, **values}
    files = {}
    if weights is not None:
        whole["weights"], content = _file("network", weights)
        files[whole["weights"]["file"]] = content
    for name, each in (parts or {}).items():
        entry, content = _file(name, each)
        whole.setdefault("parts", {})[name] = entry
        files[entry["file"]] = content
    return str(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)), files


def write_folder(
    folder: Path,
    values: Mapping[str, Any],
    weights: Tensors | None = None,
    parts: Mapping[str, Tensors] | None = None,
) -> None:
    """Writes a model; one that stands there is replaced at once and whole.

    Weights have their hash in their name, so the description, which is replaced last, always names whole files.

    Raises:
        OSError: The folder cannot be written; a model that stands there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description, files = encode(values, weights, parts)
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_atomically(folder / MODEL_FILE, description.encode())
    for old in folder.glob("*.safetensors"):
        if old.name not in files and _HASHED.fullmatch(old.name):
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
    """The description and the weights of a model; see `read_parts` for what else it may hold.

    Raises:
        ModelFolderError: There is no model, or it is damaged or of another format, or it is an autoencoder alone.
    """
    values = read_description(folder)
    if "weights" not in values and values.get("kind"):
        held, use = f"an {values['kind']}", "train a model with codec.path"
        if values["kind"] == "classifier":
            held, use = "a classifier", "guide a model with guidance.classifier"
        raise ModelFolderError(f"{folder} holds {held}, which makes no samples by itself: {use}={folder}")
    return values, _read_weights(folder, values.get("weights"))


def read_whole(folder: Path) -> dict[str, Any]:
    """The description of a model or an autoencoder whose files are all there and whole.

    Raises:
        ModelFolderError: There is none, or something of it is missing or damaged.
    """
    values = read_description(folder)
    if "weights" in values:
        _read_weights(folder, values["weights"])
    read_parts(folder, values)
    return values


def read_parts(folder: Path, values: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The weights of all that a model's folder holds beside its network, by the names of these parts.

    Args:
        folder: Of the model.
        values: Its description.

    Raises:
        ModelFolderError: One is missing or damaged.
    """
    return {name: _read_weights(folder, entry) for name, entry in (values.get("parts") or {}).items()}


def _read_weights(folder: Path, entry: Any) -> dict[str, Tensor]:
    from safetensors.torch import load

    try:
        file, sha256 = folder / entry["file"], entry["sha256"]
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ModelFolderError(f"{file} is damaged: its checksum does not fit")
        return load(content)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the model at {folder} is damaged: {str(error).splitlines()[0]}") from None


def folder_beside(path: str | Path | None, name: str) -> Path:
    """Where what is found out about a model is kept by default: in its folder; here, where it has none or comes with unnoise.

    Args:
        path: Of the model, None where it was not loaded.
        name: Of the folder that is kept.
    """
    return Path(name) if path is None or comes_with_unnoise(path) else Path(path) / name


def model_place(path: str | Path) -> Path:
    """The folder that holds the description of a model: this one, or the model within a run.

    Raises:
        ModelFolderError: There is none.
    """
    for folder in (folder_of(path), folder_of(path) / "model"):
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
