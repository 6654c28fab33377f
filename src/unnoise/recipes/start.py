"""The section of a recipe that says from which model a run starts, and what of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.base import datasets
from ..errors import ModelFolderError
from ..model_folder import model_place, read_description
from ..nn.lora import LoRASettings
from ..nn.patterns import split_patterns
from ..options import Checked, option, option_fields

SECTIONS = ("codec", "process", "denoiser", "network", "sampling")
"""What the model that a run starts from says in the place of a recipe."""


@dataclass(frozen=True)
class StartSettings(Checked):
    """From which model a run starts, and what of it learns."""

    model: str = option(help="the model to start from: a model folder, or the run folder around it")
    lora: LoRASettings | None = option(None, help="low-rank adapters learn in the place of the model's own weights")
    train: tuple[str, ...] | str = option(
        (), help="weights that learn, by patterns such as up.*; all where none is given, or beside lora none"
    )
    freeze: tuple[str, ...] | str = option((), help="weights that do not learn, by patterns")
    labels: Literal["grow", "replace"] = option(
        "grow", help="labels of the data that the model does not know are added to its own, or take their place"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train", "freeze"):
            object.__setattr__(self, name, split_patterns(getattr(self, name)))


def start_sections(path: str) -> dict[str, Any]:
    """The sections of a recipe that a model stands for; with the objective, where its run's recipe stands beside it.

    Raises:
        ModelFolderError: There is no model.
    """
    folder = _place(path)
    described = read_description(folder)
    found = {name: described[name] for name in SECTIONS if name in described}
    if "codec" in (described.get("parts") or {}):  # its weights stand in that folder too
        found["codec"] = {"name": described["codec"]["name"], "path": path}
    recipe = _run_recipe(folder)
    return {**found, "objective": recipe["objective"]} if "objective" in recipe else found


def with_start(values: dict[str, Any], replace: bool) -> None:
    """Completes the plain values of a recipe, in place, by those of the model that it starts from.

    Args:
        values: With a section `start` that names a model.
        replace: Whether the model's sections take the place of the recipe's own; else they only fill what is missing.

    Raises:
        ModelFolderError: There is no model.
    """
    if not replace and all(values.get(name) is not None for name in SECTIONS):
        return  # so that a run can be looked at where the model that it started from is gone
    path = str(values["start"]["model"])
    for name, section in start_sections(path).items():
        if replace or values.get(name) is None:
            values[name] = section
    data = values.get("data")
    spec = {"name": data} if isinstance(data, str) else dict(data) if isinstance(data, Mapping) else None
    if spec is not None and spec.get("name") in datasets:
        known = option_fields(datasets.options_class(str(spec["name"])))
        for key, size in _sizes(read_description(_place(path))).items():
            if key in known and (replace or not spec.get(key)):
                spec[key] = size
        values["data"] = spec


def _sizes(described: Mapping[str, Any]) -> dict[str, int]:
    """The options that bring pictures to the shape of a model's."""
    data = described["data"]
    if data["kind"] != "image" or len(data["shape"]) != 3:
        return {}
    channels, height, width = data["shape"]
    return {"channels": channels, **({"size": height} if height == width else {})}


def _place(path: str) -> Path:
    try:
        return model_place(Path(path).expanduser())
    except ModelFolderError as error:
        raise ModelFolderError(f"start.model: {error}") from None


def _run_recipe(folder: Path) -> dict[str, Any]:
    """The recipe of the run around a model folder; empty where there is none."""
    import yaml

    file = folder.resolve().parent / "recipe.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
