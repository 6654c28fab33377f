"""The recipe of a command: as it stands, or with data of one's own."""

from __future__ import annotations

from typing import Any

STREAM = "Read the data as it is needed, for data that does not fit into memory."


def values_of(recipe: str, data: str | None, stream: bool) -> dict[str, Any]:
    """The plain values of a recipe, with the data that was given.

    Args:
        recipe: A shipped recipe's name, or a YAML file.
        data: Where the data is; None for the recipe's own.
        stream: Whether its samples are read as they are needed.

    Raises:
        BadOption: There is no such recipe file, or it is to stream what was not given.
        UnknownName: No recipe is called so.
        DataError: Nothing that can be read stands there.
    """
    from ..errors import BadOption
    from ..recipes.recipe import read_values, with_data

    values = read_values(recipe)
    if data is not None:
        return with_data(values, data, stream)
    if stream:
        raise BadOption("--stream is about data of yours: give it with --data")
    return values
