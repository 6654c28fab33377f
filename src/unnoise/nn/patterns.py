"""Which layers and weights of a network a person means: by name, by shell pattern, or by a group's name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ..errors import BadOption

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_MOST_TOLD = 12


def split_patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    """Patterns as a person writes them: several, or one text with commas between, in brackets or not."""
    if not isinstance(patterns, str):
        return tuple(patterns)
    text = patterns.strip()
    if text.startswith("[") and text.endswith("]"):  # a list that is no YAML, since `*` begins an alias there
        text = text[1:-1]
    return tuple(part.strip().strip("'\"") for part in text.split(",") if part.strip())


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The linear layers and convolutions of a network, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LAYERS)}


def layer_groups(network: nn.Module) -> dict[str, list[str]]:
    """The names of layers by group: all, linear, conv, and attention for those that stand in a module of such a name."""
    layers = layers_of(network)
    inside = [
        f"{name}." for name, module in network.named_modules() if name and "attention" in type(module).__name__.lower()
    ]
    return {
        "all": list(layers),
        "linear": [name for name, layer in layers.items() if isinstance(layer, nn.Linear)],
        "conv": [name for name, layer in layers.items() if not isinstance(layer, nn.Linear)],
        "attention": [name for name in layers if name.startswith(tuple(inside))],
    }


def matching(
    patterns: Iterable[str], names: Sequence[str], what: str, groups: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """The names that any of some patterns means, in their own order.

    A pattern is a shell pattern over the whole name, in which `*` crosses dots; the name of a module, for all below it; or
    the name of a group.

    Args:
        patterns: Such as "middle.*", "*.project_in", "middle" or "attention".
        names: What there is.
        what: What the names are names of, for messages: "linear layer or convolution".
        groups: Names by the name of a group.

    Raises:
        BadOption: A pattern means nothing; the message names the nearest that would.
    """
    known = groups or {}
    meant: set[str] = set()
    for pattern in patterns:
        found = known.get(pattern) or [
            name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
        ]
        if not found:
            raise BadOption(f"{pattern!r} matches no {what}{_hint(pattern, names, known)}")
        meant.update(found)
    return [name for name in names if name in meant]


def _hint(pattern: str, names: Sequence[str], groups: Mapping[str, Collection[str]]) -> str:
    """The nearest patterns that match something, and what there is, numbers left out."""
    # One stands for all that differ in a number only: there are hundreds of layers, and a dozen kinds.
    kinds = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names))
    heads = dict.fromkeys(f"{name.partition('.')[0]}.*" for name in names if "." in name)
    tails = dict.fromkeys(f"*.{name.rpartition('.')[2]}" for name in names if "." in name)
    full = [group for group, members in groups.items() if members]
    close = get_close_matches(pattern, [*full, *heads, *tails, *kinds], n=2, cutoff=0.5)
    nearest = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    more = f" and {len(kinds) - _MOST_TOLD} kinds more" if len(kinds) > _MOST_TOLD else ""
    grouped = f"; groups: {', '.join(full)}" if full else ""
    return f"{nearest} (there are {', '.join(kinds[:_MOST_TOLD])}{more}{grouped})"
