"""TensorBoard: files in the run folder, which `tensorboard --logdir runs` shows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ...errors import MissingExtra
from ...files import naming
from .base import TrackedRun, Tracker, trackers


@trackers.register("tensorboard")
class TensorBoardTracker(Tracker):
    """Event files in `tensorboard/` of the run folder; the default."""

    optional = True

    def __init__(self, run: TrackedRun) -> None:
        if find_spec("tensorboard") is None:
            raise MissingExtra("tracking.trackers=tensorboard", "tensorboard", "track")
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / "tensorboard"
        before = set(threading.enumerate())
        with naming(self._folder):
            self._board = SummaryWriter(str(self._folder), purge_step=run.step + 1)
        self._quieted = _Quieted(set(threading.enumerate()) - before)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.numbers`."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import scalar

        # As one event: for each, a thread is woken, which costs more than to write it.
        together = Summary()
        for name, value in values.items():
            together.MergeFrom(scalar(name, value))
        with naming(self._folder):
            self._board.file_writer.add_summary(together, step)  # type: ignore[attr-defined]

    def picture(self, name: str, path: Path, step: int) -> None:
        """See `Tracker.picture`."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image, naming(self._folder):
            self._board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker.close`."""
        try:
            with naming(self._folder):
                self._board.close()
        finally:
            self._quieted.end()


class _Quieted:
    """Threads that say nothing when they fail, until `end`: TensorBoard's hands its error to whoever writes next, who tells it."""

    def __init__(self, threads: set[threading.Thread]) -> None:
        self.threads, self._before = threads, threading.excepthook
        self._mine = self._heard  # one and the same object, which `end` recognises
        threading.excepthook = self._mine

    def _heard(self, failed: threading.ExceptHookArgs) -> None:
        if failed.thread not in self.threads:
            self._before(failed)

    def end(self) -> None:
        """Puts back what was told of threads before, unless somebody else listens by now."""
        if threading.excepthook is self._mine:
            threading.excepthook = self._before
