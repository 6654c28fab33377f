"""Everything that a person can choose by name, with one line about each."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from ..codecs.base import codecs
from ..conditioning.text.base import text_encoders
from ..data.base import datasets
from ..denoisers.base import denoisers
from ..evaluation.features.base import extractors
from ..evaluation.metrics.base import metrics
from ..guidance.base import guidances
from ..nn.base import networks
from ..objectives.base import objectives
from ..objectives.times import time_densities
from ..objectives.weightings import weightings
from ..options import option_fields
from ..process.base import schedules
from ..registry import Registry
from ..samplers import grids
from ..samplers.base import samplers
from ..training.averages import averages
from ..training.optimizers.base import optimizers
from ..training.rates import learning_rates
from .diagnosis.base import checks
from .places.base import places
from .recipe import shipped
from .tracking.base import trackers

REGISTRIES: dict[str, Registry[Any]] = {
    "schedules": schedules,
    "predictions": denoisers,
    "networks": networks,
    "text-encoders": text_encoders,
    "samplers": samplers,
    "guidance": guidances,
    "objectives": objectives,
    "weightings": weightings,
    "times": time_densities,
    "optimizers": optimizers,
    "rates": learning_rates,
    "averages": averages,
    "codecs": codecs,
    "datasets": datasets,
    "metrics": metrics,
    "features": extractors,
    "trackers": trackers,
    "checks": checks,
    "places": places,
}


@dataclass(frozen=True)
class Entry:
    """One thing that can be chosen.

    Args:
        name: What a person types.
        summary: One line.
        options: A line about each of its options, by name.
    """

    name: str
    summary: str
    options: dict[str, str] = field(default_factory=dict)


def summary_of(cls: type) -> str:
    """What a part is, in the first line of its docstring."""
    line = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
    return re.sub(r":math:`([^`]*)`", lambda found: found[1].replace("\\varnothing", "∅").replace("\\", ""), line)


def _options(cls: type) -> dict[str, str]:
    if not dataclasses.is_dataclass(cls):
        return {}
    lines = {}
    for name, each in option_fields(cls).items():
        default = "required" if each.default is dataclasses.MISSING else each.default
        lines[name] = f"{each.metadata.get('help', '')} [{getattr(default, 'registered_name', default)}]"
    return lines


def catalogue() -> dict[str, list[Entry]]:
    """What can be chosen, by kind."""
    kinds = {"recipes": [Entry(name, text) for name, text in shipped().items()]}
    for kind, registry in REGISTRIES.items():
        kinds[kind] = [
            Entry(name, summary_of(registry[name]), _options(registry.options_class(name))) for name in registry
        ]
    kinds["grids"] = [Entry(name, text) for name, text in grids.SUMMARIES.items()]
    return kinds
