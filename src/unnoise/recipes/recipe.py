"""A recipe: everything that a training run depends on, as one checked value that YAML can hold."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..codecs.base import Codec, codecs
from ..data.base import datasets
from ..data.open import source_of
from ..denoisers.base import denoisers
from ..errors import BadOption, UnknownName, nearest
from ..nn.base import networks
from ..objectives.base import Objective, objectives
from ..objectives.mse import MSEObjective
from ..options import Checked, build, option, option_fields
from ..process.base import Schedule, schedules
from ..process.linear import LinearSchedule
from ..registry import Choice, Registry
from ..samplers.grids import make_grid
from ..sampling import SamplingSettings
from .any_recipe import AnyRecipe
from .autoencoder import AutoencoderRecipe
from .clip import ClipRecipe
from .judging.plan import EvaluationPlan
from .noising import stand_in
from .start import StartSettings, with_start
from .words import ConditioningSettings


@dataclass(frozen=True)
class DenoiserSettings(Checked):
    """What the network predicts."""

    name: str = option("noise", help="what the network predicts: see `unnoise list predictions`")
    sigma_data: float | Literal["auto"] = option(
        "auto", help="standard deviation of the encoded data; auto measures it"
    )
    learned_variance: bool = option(False, help="whether the network also learns a variance (objective hybrid)")
    self_conditioning: bool = option(
        False,
        help="whether the network also sees the estimate that it made before: half a step slower, twice the channels in",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in denoisers:
            raise BadOption(str(UnknownName("prediction", self.name, denoisers)))
        if self.sigma_data != "auto" and not 0 < self.sigma_data < math.inf:
            raise BadOption(f"sigma_data: expected a positive number or auto, got {self.sigma_data}")


class _AutoCodecs(Registry[Codec]):
    """The codecs, and "auto": pixels for images, zero mean and unit variance for the rest."""

    def build(self, spec: Any, where: str = "") -> Any:
        """None for "auto"; see `Registry.build`."""
        return None if spec in ("auto", None) else codecs.build(spec, where)

    def describe(self, part: Any) -> Any:
        """See `Registry.describe`."""
        return "auto" if part is None else codecs.describe(part)


@dataclass(frozen=True, kw_only=True)
class Recipe(AnyRecipe):
    """Everything that a training run of a diffusion model depends on."""

    kind = "diffusion"
    sections = (
        "description", "seed", "start", "data", "codec", "process", "denoiser", "conditioning", "network", "objective", "training",
        "sampling", "evaluation", "machine", "tracking",
    )  # fmt: skip

    network: Choice = option(help="the network: see `unnoise list networks`", one_of=networks)
    start: StartSettings | None = option(None, help="a model to start from; its parts take the place of the recipe's")
    codec: Codec | None = option(
        None, help="the way into the space of the model; auto chooses by the data", one_of=_AutoCodecs("codec")
    )
    process: Schedule = option(LinearSchedule(), help="the noise schedule", one_of=schedules)
    denoiser: DenoiserSettings = option(DenoiserSettings(), help="what the network predicts")
    conditioning: ConditioningSettings = option(
        ConditioningSettings(), help="what the model can be asked for beside the labels of its data"
    )
    objective: Objective = option(MSEObjective(), help="the loss", one_of=objectives)
    sampling: SamplingSettings = option(SamplingSettings(), help="how the model is sampled when nothing else is said")
    evaluation: EvaluationPlan = option(EvaluationPlan(), help="what is measured while it is trained")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective.learns_variance != self.denoiser.learned_variance:
            name = self.objective.registered_name  # type: ignore[attr-defined]
            raise BadOption(
                f"denoiser.learned_variance: must be {str(self.objective.learns_variance).lower()} with the objective {name!r}"
            )
        if getattr(self.network.config, "guidance", False) and self.start is None:
            raise BadOption(
                "network.guidance: no guidance is distilled into what is trained here, so that the scale would say nothing: leave "
                "it out, or start from a model that has it"
            )
        try:  # now, and not when the first samples are drawn
            make_grid(self.sampling.grid, self.sampling.steps, stand_in(self.process))
        except (BadOption, UnknownName) as error:
            raise BadOption(f"sampling: {error}") from None

    @property
    def begins_anew(self) -> bool:
        """See `AnyRecipe.begins_anew`."""
        return self.start is None


KINDS: dict[str, type[AnyRecipe]] = {each.kind: each for each in (Recipe, AutoencoderRecipe, ClipRecipe)}
PARTS: dict[str, Registry[Any]] = {
    "data": datasets, "network": networks, "codec": codecs, "process": schedules, "objective": objectives,
}  # fmt: skip


def shipped() -> dict[str, str]:
    """The recipes that come with unnoise: name and description."""
    import yaml

    return {name: str(yaml.safe_load(_shipped(name)).get("description", "")) for name in shipped_names()}


def shipped_names() -> list[str]:
    """The names of the recipes that come with unnoise; to know them no recipe is read."""
    found = (file.name for file in files(__package__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def _shipped(name: str) -> str:
    return (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")


def read_values(recipe: str | Path) -> dict[str, Any]:
    """The plain values of a shipped recipe, by name, or of a YAML file.

    Raises:
        UnknownName: No recipe is called so, and no such file exists.
        BadOption: The file is not a mapping in YAML.
    """
    import yaml

    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BadOption(f"there is no recipe file {path}") from None
        except UnicodeDecodeError:
            raise BadOption(f"{path} is no recipe: expected a YAML file in UTF-8") from None
    elif str(recipe) in shipped_names():
        text = _shipped(str(recipe))
    else:
        raise UnknownName("recipe", str(recipe), shipped_names())
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that there is not
        raise BadOption(f"{recipe} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadOption(f"{recipe}: expected sections by name, such as `training:`, got {type(values).__name__}")
    return values


def parse_override(text: str) -> tuple[list[str], Any]:
    """The path and value of an override such as "training.lr=1e-4".

    Raises:
        BadOption: It is not of the form section.key=value.
    """
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadOption(f"expected section.key=value, such as training.lr=1e-4, got {text!r}")
    try:
        return key.strip().split("."), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return key.strip().split("."), value


def override(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets one value in place. A part that gets another name loses the options of the old one.

    Raises:
        BadOption: The path leads through something that is not a section.
    """
    place = values
    for i, step in enumerate(path[:-1]):
        inner = place.get(step)
        if inner is None or isinstance(inner, str):
            inner = place[step] = {} if inner is None else {"name": inner}
        if not isinstance(inner, dict):
            raise BadOption(f"{'.'.join(path)}: {'.'.join(path[: i + 1])} has no options of its own")
        place = inner
    last = path[-1]
    if last == "name" and place.get("name") != value and len(path) > 1 and path[0] != "denoiser":
        place.clear()
    if isinstance(place.get(last), dict) and isinstance(value, str):
        # All predictions have the same options; those of other parts belong to the part that is replaced.
        value = {**place[last], "name": value} if last == "denoiser" else {"name": value}
    place[last] = value


def load_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), **more: Any) -> Recipe:
    """A checked recipe of a diffusion model; arguments and errors as in `load_any_recipe`.

    Raises:
        BadOption: It is a recipe of something else.
    """
    checked = load_any_recipe(recipe, overrides, **more)
    if not isinstance(checked, Recipe):
        name = recipe if isinstance(recipe, (str, Path)) else "this"
        raise BadOption(
            f"{name} is a recipe of kind {checked.kind}, and this takes one of a diffusion model: see `unnoise train`, "
            "`unnoise doctor` and `unnoise plan`"
        )
    return checked


def load_any_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), **more: Any) -> AnyRecipe:
    """A checked recipe of any kind.

    Args:
        recipe: A shipped recipe's name, a YAML file, or plain values.
        overrides: Texts such as "training.lr=1e-4".
        more: Values by dotted or double-underscored path, such as training__lr=1e-4.

    Raises:
        UnknownName: No recipe is called so.
        BadOption: A key or a value is wrong; the message names the nearest known key.
    """
    values = copy.deepcopy(dict(recipe)) if isinstance(recipe, Mapping) else read_values(recipe)
    kind = values.pop("kind", Recipe.kind)
    if kind not in KINDS:
        raise BadOption(f"kind: {UnknownName('kind of recipe', kind, KINDS)}")
    cls = KINDS[kind]
    pairs = [parse_override(text) for text in overrides]
    pairs += [(key.replace("__", ".").split("."), value) for key, value in more.items()]
    for path, _ in pairs:
        if path[0] not in option_fields(cls):
            raise BadOption(f"{'.'.join(path)}: there is no such section{nearest(path[0], option_fields(cls))}")
    begins = (
        values.get("start") is None
    )  # said here and not in the recipe: the model goes before the recipe's own sections
    for path, value in [pair for pair in pairs if pair[0][0] == "start"]:
        override(values, path, value)
    start = values.get("start")
    if isinstance(start, dict) and start.get("model"):
        with_start(values, begins)
    for path, value in [pair for pair in pairs if pair[0][0] != "start"]:
        override(values, path, value)
    for name, field in option_fields(cls).items():  # options alone are those of the part that a recipe has by default
        part, default = values.get(name), getattr(field.default, "registered_name", None)
        if default and isinstance(part, dict) and "name" not in part:
            values[name] = {"name": default, **part}
    data = values.get("data")
    if isinstance(data, dict) and "path" in _required(data) and not data.get("path"):
        raise BadOption("data.path: this recipe needs data of yours: add --data PATH")
    return build(cls, values)


def _required(data: Mapping[str, Any]) -> list[str]:
    import dataclasses

    name = data.get("name")
    if name not in datasets:
        return []
    fields = option_fields(datasets.options_class(str(name)))
    return [key for key, field in fields.items() if field.default is dataclasses.MISSING]


def with_data(values: Mapping[str, Any], path: str | Path, stream: bool = False) -> dict[str, Any]:
    """The plain values of a recipe, with other data; options of the data section that fit it stay.

    Args:
        values: As `read_values` gives them.
        path: A folder of images, Parquet, shards, a URL, NPY/NPZ or CSV, or a shipped data set's name.
        stream: Whether the samples are read as they are needed, also where they could be held in memory.

    Raises:
        DataError: Nothing that can be read stands there.
    """
    if str(path) in datasets and not Path(path).exists():
        return {**values, "data": {"name": str(path)}}
    spec = datasets.describe(source_of(path, stream))
    kept = values.get("data")
    known = option_fields(datasets.options_class(spec["name"]))
    own = {k: v for k, v in kept.items() if k in known and k != "path"} if isinstance(kept, Mapping) else {}
    return {**values, "data": {"name": spec["name"], **own, "path": str(path)}}
