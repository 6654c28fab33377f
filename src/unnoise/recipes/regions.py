"""How a model will understand what stands where, settled by its data."""

from __future__ import annotations

from ..conditioning.regions import RegionConditioning
from ..data.base import AnyDataset, Dataset
from ..data.regions import Regions
from ..errors import DataError
from .words import ConditioningSettings


def settled_regions(
    settings: ConditioningSettings, train: AnyDataset, path: str, known: RegionConditioning | None = None
) -> RegionConditioning | None:
    """How a model will understand boxes and label maps; None where it will not.

    Args:
        settings: Of the recipe.
        train: The training data.
        path: Where it lies, for messages.
        known: How the model that the run starts from understands them.

    Raises:
        DataError: The data has no boxes or no maps.
    """
    wanted = [name for name, on in (("boxes", settings.boxes), ("map", settings.map != "none")) if on]
    if not wanted:
        return known
    regions = train.regions if isinstance(train, Dataset) and train.regions is not None else Regions()
    where = {
        "boxes": 'say where things stand in a metadata.jsonl ("objects": {"bbox": ..., "categories": ...}) or in a column',
        "map": "give a folder of label maps with data.maps, or a column of them with data.map_column",
    }
    for name in wanted:
        if (regions.boxes if name == "boxes" else regions.maps) is None:
            raise DataError(f"conditioning.{name}: {path} has none: {where[name]}, or leave conditioning.{name} out")
    if known is not None:
        return known
    return RegionConditioning(
        regions.box_names if settings.boxes else None,
        None if settings.map == "none" else regions.map_names,
        "area" if settings.map == "none" else settings.map,
    )
