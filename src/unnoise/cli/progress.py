"""Progress on stderr: a live bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


def say(text: str) -> None:
    """A line on stderr, as it is, above a progress bar where there is one."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def bar(unit: str = "") -> Progress:
    """A progress bar with a name, a count, free text and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(f"{unit}{{task.fields[facts]}}"),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


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


class Rate:
    """How many a second, over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def __call__(self, done: int) -> float:
        """The rate, given how many are done now."""
        self._marks.append((time.perf_counter(), done))
        self._marks = self._marks[-60:]
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(now - then, 1e-9)
