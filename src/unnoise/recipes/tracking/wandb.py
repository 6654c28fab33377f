"""Weights & Biases, on its server or, with WANDB_MODE=offline, in files that `wandb sync` uploads later."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ...errors import MissingExtra
from .base import TrackedRun, Tracker, trackers

ID_FILE = ".wandb-id"


@trackers.register("wandb")
class WandbTracker(Tracker):
    """One W&B run for one run folder, however often it is resumed."""

    def __init__(self, run: TrackedRun) -> None:
        if find_spec("wandb") is None:
            raise MissingExtra("tracking.trackers=wandb", "wandb", "wandb")
        import wandb

        remembered = run.folder / ID_FILE
        if not remembered.is_file():
            remembered.write_text(uuid.uuid4().hex[:12], encoding="ascii")
        settings = wandb.Settings(base_url=run.settings.uri, silent=True) if run.settings.uri else {"silent": True}
        self._run = wandb.init(
            project=run.settings.project, name=run.name, id=remembered.read_text(encoding="ascii").strip(),
            resume="allow", dir=str(run.folder), config=dict(run.recipe), settings=settings,
        )  # fmt: skip
        # Lines of a resumed run may repeat steps, which W&B's own counter would refuse.
        self._run.define_metric("*", step_metric="step")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.numbers`."""
        self._run.log({**values, "step": step})

    def picture(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.picture`."""
        import wandb

        self._run.log({name: wandb.Image(str(path)), "step": step})

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()
