"""TensorBoard: files in the run folder, which `tensorboard --logdir runs` shows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ...errors import MissingExtra
from .base import TrackedRun, Tracker, trackers


@trackers.register("tensorboard")
class TensorBoardTracker(Tracker):
    """Event files in `tensorboard/` of the run folder; the default."""

    optional = True

    def __init__(self, run: TrackedRun) -> None:
        if find_spec("tensorboard") is None:
            raise MissingExtra("tracking.trackers=tensorboard", "tensorboard", "track")
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.numbers`."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import scalar

        # As one event: for each, a thread is woken, which costs more than to write it.
        together = Summary()
        for name, value in values.items():
            together.MergeFrom(scalar(name, value))
        self._board.file_writer.add_summary(together, step)  # type: ignore[attr-defined]

    def picture(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.picture`."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker.close`."""
        self._board.close()
