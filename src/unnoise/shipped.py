"""The models that come with unnoise: small, known by name from anywhere, and each with a card that says what it can do."""

from __future__ import annotations

from pathlib import Path

READY = "ready"
"""The name of the first of them, which draws coloured shapes; of others `ready-` stands before theirs."""
_FOLDER = Path(__file__).parent / "ready"
SHIPPED = {READY: _FOLDER / "shapes", "ready-emoji": _FOLDER / "emoji"}
"""Where each stands, by its name; its README.md is its card."""


def folder_of(path: str | Path) -> Path:
    """The folder at a path: that of a model that comes with unnoise for its name, unless something of that name stands there."""
    shipped = SHIPPED.get(str(path))
    return Path(path) if shipped is None or Path(path).exists() else shipped


def by_name() -> dict[str, str]:
    """A path to each, by its name: the name itself, as recipes tell it, unless something else of that name stands here."""
    return {name: str(folder) if Path(name).exists() else name for name, folder in SHIPPED.items()}


def comes_with_unnoise(path: str | Path) -> bool:
    """Whether a path is that of a model that comes with unnoise, into whose folder nothing is written."""
    return folder_of(path) in SHIPPED.values()


def ready_for(prompt: str | None) -> str:
    """The name of the model that comes with unnoise and knows most words of a prompt; the first of those that know as many.

    Args:
        prompt: None asks for nothing.
    """
    from .conditioning.text.tokenizer import split_words

    wanted = set(split_words(prompt or ""))
    return max(SHIPPED, key=lambda name: len(wanted & _words(SHIPPED[name])))


def _words(folder: Path) -> set[str]:
    """The words of the captions that a model learned from."""
    from safetensors import safe_open

    (file,) = folder.glob("text-*.safetensors")
    with safe_open(file, framework="np") as tensors:
        return set(bytes(tensors.get_tensor("words")).decode().split("\n"))
