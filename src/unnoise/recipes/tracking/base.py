"""What a tracker is: it is shown the numbers and pictures of a run, and brings them to where somebody looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UnknownName
from ...options import Checked, option
from ...registry import Registry


@dataclass(frozen=True)
class TrackingSettings(Checked):
    """Where a run can be watched. May differ between the beginning of a run and its resumption."""

    trackers: tuple[str, ...] = option(
        ("tensorboard",), help="see `unnoise list trackers`; tensorboard is left out where it is not installed"
    )
    project: str = option("unnoise", help="under which the run is filed: project in W&B, experiment in MLflow")
    name: str = option("", help="of the run there; its folder's name by default")
    uri: str = option("", help="of the server, of MLflow a folder too; that of the tracker's own settings by default")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.trackers:
            if name not in trackers:
                raise UnknownName("tracker", name, trackers)


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Args:
        folder: Of the run.
        recipe: Every option, as plain values.
        settings: Where it is filed.
        step: Where it stands; what was shown of later steps is written anew.
    """

    folder: Path
    recipe: Mapping[str, Any]
    settings: TrackingSettings
    step: int

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.settings.name or self.folder.resolve().name


class Tracker(ABC):
    """Made as `cls(run)`.

    Args:
        run: What is shown.

    Raises:
        MissingExtra: The library that it speaks through is not installed.
    """

    optional = False
    """Whether it is left out without a word where its library is not installed."""

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None: ...

    @abstractmethod
    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Shows numbers by name, after so many updates."""

    @abstractmethod
    def picture(self, name: str, path: Path, step: int) -> None:
        """Shows a picture that stands in a file, after so many updates."""

    @abstractmethod
    def close(self) -> None:
        """Everything was shown, for now."""


def numbers_in(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics, by name; those by time get it into their names."""
    found = {name: value for name, value in line.items() if isinstance(value, float)}
    by_time = line.get("by_time")
    if by_time:
        for kind in ("loss", "floor"):
            for t, value in zip(by_time["t"], by_time.get(kind) or (), strict=False):
                found[f"{kind}_by_time/{t:.2f}"] = value
    return found


trackers: Registry[Tracker] = Registry("tracker", "unnoise.recipes.tracking")
