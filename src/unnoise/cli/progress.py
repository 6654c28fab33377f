"""Progress on stderr: a live bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

from ..recipes.watch import bar as bar
from ..recipes.watch import console as console
from ..recipes.watch import say as say


class DataProgress:
    """Shows the reading of data: called with what is done, how many are done and how many there are."""

    def __init__(self) -> None:
        self._bar = bar()
        self._tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """See the class."""
        if what not in self._tasks:
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=total, facts="")
        self._bar.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]
        if done >= total:
            self._bar.stop()


class StopSignals:
    """A context in which Ctrl-C and SIGTERM ask for a stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopSignals:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this step; Ctrl-C again to stop at once", file=sys.stderr)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.received is not None
