"""What every recipe says, whatever is trained by it."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from ..data.base import DataSource, datasets
from ..options import Checked, option, plain
from ..training.machine import MachineSettings
from ..training.settings import TrainingSettings
from .tracking.base import TrackingSettings


@dataclass(frozen=True, kw_only=True)
class AnyRecipe(Checked, ABC):
    """Everything that a training run depends on."""

    kind: ClassVar[str]
    """What is trained, as the `kind` of a recipe's file says it; a file that says nothing is of a diffusion model."""
    sections: ClassVar[tuple[str, ...]]
    """The options in the order in which a file has them."""

    data: DataSource = option(help="what is learned: see `unnoise list datasets`", one_of=datasets)
    description: str = option("", help="one line for people")
    seed: int = option(0, help="of weights, data order, times, noise and condition dropout", low=0, high=2**63 - 1)
    training: TrainingSettings = option(TrainingSettings(), help="how the weights are found")
    machine: MachineSettings = option(MachineSettings(), help="how the run is executed: device, precision, processes")
    tracking: TrackingSettings = option(TrackingSettings(), help="where its numbers can be watched")

    @property
    def begins_anew(self) -> bool:
        """Whether it begins with weights drawn by chance, and not with those of a model, which may have little left to learn."""
        return True

    def describe(self) -> dict[str, Any]:
        """The recipe as plain values, with every default written out."""
        values = plain(self)
        kind = {} if self.kind == "diffusion" else {"kind": self.kind}
        return {**kind, **{name: values[name] for name in self.sections}}

    def yaml(self) -> str:
        """The recipe as a file that `unnoise train` takes."""
        import yaml

        return str(yaml.safe_dump(self.describe(), sort_keys=False, allow_unicode=True, width=120))
