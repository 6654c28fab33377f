"""Progress on stderr: a live bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import Any

from typer.core import TyperGroup

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


@contextmanager
def stopped_with(told: str) -> Iterator[None]:
    """A context in which Ctrl-C ends the command at once, with a line that says what was written."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nstopped: {told}")
        sys.exit(128 + signal.SIGINT)


def nothing_written() -> AbstractContextManager[None]:
    """A context for work that writes its files at the end, each in one piece."""
    return stopped_with("nothing was written")


class StoppedInALine(TyperGroup):
    """Commands that Ctrl-C ends with a line, whatever they were doing."""

    told = "what was written before stays, and no file is half written"

    def invoke(self, ctx: Any) -> Any:
        """See the class."""
        with stopped_with(self.told):
            return super().invoke(ctx)


class WritesAtTheEnd(StoppedInALine):
    """The same for commands that write only when all is done."""

    told = "nothing was written"
