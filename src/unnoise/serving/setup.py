"""What a server is made of, as plain values, so that each of its processes can begin an engine of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.engine import Engine
from ..engine.results import Results
from ..engine.settings import EngineSettings
from ..engine.shelf import Shelf
from ..precision import Precision, fit_threads, keep_little
from .settings import ServingSettings


@dataclass(frozen=True)
class Setup:
    """What a server is made of.

    Args:
        models: Their folders, by name.
        results: The folder that keeps what is made.
        memory: Bytes of weights at once; None for half of what the device has.
        device: Where they sample; see `Model.on`.
        precision: What they compute in.
        engine: How much an engine takes on.
        serving: What clients may do.
    """

    models: Mapping[str, str]
    results: Path
    memory: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    engine: EngineSettings = field(default_factory=EngineSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)

    def shelf(self) -> Shelf:
        """The models, none of which is loaded yet.

        Raises:
            BadOption: A name is none.
            ModelFolderError: A folder holds no model.
        """
        return Shelf(self.models, memory=self.memory, device=self.device, precision=self.precision)

    def begin(self) -> Engine:
        """An engine that runs.

        Raises:
            BadOption: A name is none.
            ModelFolderError: A folder holds no model.
            OSError: The results cannot be written.
        """
        fit_threads()
        keep_little()
        return Engine(self.shelf(), Results(self.results), self.engine)
