"""An autoencoder on disk: a folder like a model's, with a codec in it and no network; or a model's folder, whose codec it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..codecs.autoencoder import AutoencoderCodec
from ..codecs.base import Codec, codecs
from ..data.base import Spec
from ..errors import ModelFolderError, UnnoiseError
from ..model_folder import model_place, read_description, read_parts, write_folder

KIND = "autoencoder"


def save_codec(folder: str | Path, codec: AutoencoderCodec, spec: Spec, trained: Mapping[str, Any]) -> Path:
    """Writes an autoencoder's folder; one that stands there is replaced at once and whole.

    Args:
        folder: Made if missing.
        codec: With its weights.
        spec: What one sample of the data that it was trained on is.
        trained: How it came to be, as plain values.

    Raises:
        OSError: The folder cannot be written; what stands there stays.
    """
    write_folder(Path(folder), codec_values(codec, spec, trained), parts={"codec": codec.weights()})
    return Path(folder)


def codec_values(codec: AutoencoderCodec, spec: Spec, trained: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an autoencoder's folder; arguments as in `save_codec`."""
    data = {"kind": spec.kind, "shape": list(spec.shape)}
    return {"kind": KIND, "data": data, "codec": codec.describe(), "trained": dict(trained)}


def load_codec(path: str | Path) -> AutoencoderCodec:
    """The autoencoder in a folder: one that `unnoise train` made, the run folder around it, or a model's that uses one.

    Raises:
        ModelFolderError: There is none, or it is damaged.
    """
    return read_codec(path)[0]


def read_codec(path: str | Path) -> tuple[AutoencoderCodec, dict[str, Any]]:
    """The autoencoder in a folder, and the folder's whole description; see `load_codec`."""
    folder = model_place(Path(path).expanduser())
    values = read_description(folder)
    if "codec" not in (values.get("parts") or {}):
        raise ModelFolderError(f"{path} holds no autoencoder: it is a model that works on its data as they are")
    parts = read_parts(folder, values)
    try:
        codec = codecs.build(values["codec"], "codec").with_weights(parts["codec"])
    except (UnnoiseError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the autoencoder at {path} cannot be built: {error}") from None
    assert isinstance(codec, AutoencoderCodec)
    return codec, values


def settled_codec(codec: Codec) -> Codec:
    """The codec of a recipe with its weights, where it has some.

    Raises:
        ModelFolderError: There is no autoencoder at its path.
        BadOption: It needs a path, and has none.
    """
    if not isinstance(codec, AutoencoderCodec):
        return codec
    if not codec.path:
        _ = codec.autoencoder
        return codec
    try:
        return load_codec(codec.path).chosen(codec)
    except ModelFolderError as error:
        place = Path(codec.path)
        comes_first = not place.exists() and (Path(__file__).parent / f"{place.name}.yaml").is_file()
        hint = f"; it comes first: unnoise train {place.name} --out {place}" if comes_first else ""
        raise ModelFolderError(f"codec.path: {error}{hint}") from None
