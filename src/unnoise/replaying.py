"""What the recipe of a file asks for, so that it is made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .request import whole_number
from .samples import PER_SAMPLE

KEPT = ("sampler", "steps", "grid", "guidance", "seed")
"""What is asked for again as the recipe says it."""
SOMETIMES = ("blend", "strength")
"""The same, of recipes that say it."""


def asked_again(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """What `Model.sample` is to be asked.

    Args:
        recipe: A whole one, see `check_recipe`.

    Returns:
        The arguments by name; and where the recipe is that of one sample of a folder, the place of that one among those that they
        ask for, else None. Its whole batch is asked for, since a batch of another size may round otherwise.

    Raises:
        BadOption: A number of the recipe cannot be.
    """
    first, n, size = (whole_number(key, recipe[key], low) for key, low in (("first", 0), ("n", 1), ("batch_size", 1)))
    told = {key: recipe[key] for key in PER_SAMPLE if key in recipe}
    kept = {key: recipe[key] for key in KEPT}
    kept |= {key: recipe[key] for key in SOMETIMES if recipe.get(key) is not None}
    if recipe.get("index") is None:
        return {
            **told,
            **kept,
            "n": n,
            "first": first,
            "batch_size": size,
            "keep_frames": bool(recipe.get("frames")),
        }, None
    index = whole_number("index", recipe["index"], first) - first
    low = index // size * size
    high = min(low + size, n)
    part = {key: value[low:high] if isinstance(value, list) else value for key, value in told.items()}
    return {**part, **kept, "n": high - low, "first": first + low, "batch_size": size}, index - low
