"""Progress on stderr: a live bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from .run import Run, RunEvent

PATIENCE = 5.0
"""Seconds after which a line tells what takes so long, where there is no bar to say it."""

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


class _Doing:
    """What is done now, in the name of a bar; where there is none, a line once it takes long."""

    def __init__(self, progress: Progress, usual: str, **facts: Any) -> None:
        self._progress, self._usual = progress, usual
        self.task = progress.add_task(usual, facts="", **facts)
        self._timer: threading.Timer | None = None

    def __call__(self, what: str = "", where: str = "") -> None:
        """Begins with `what`, or goes back to the usual."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._progress.update(self.task, description=what or self._usual)
        if what and not console.is_terminal:
            self._timer = threading.Timer(PATIENCE, say, [f"{where}  {what} ..."])
            self._timer.daemon = True
            self._timer.start()


def _told(events: Iterator[RunEvent], doing: _Doing) -> Iterator[RunEvent]:
    """The events of a run; what is done between them is told."""
    from ..training.loop import Working

    try:
        for event in events:
            doing(*((event.what, f"step {event.step:>7,}") if isinstance(event, Working) else ()))
            yield event
    finally:
        doing()


def watch(run: Run, stop: Callable[[], bool] = lambda: False) -> bool:
    """Trains, and shows how it goes: the loss beside its floor, samples a second, the time left.

    Args:
        run: What is trained.
        stop: Asked after every step; when true, the state is saved and the run ends.

    Returns:
        Whether all steps are made.

    Raises:
        TrainingDiverged: The loss, its gradient or a weight is no longer a number.
        OutOfMemory: The memory does not suffice for as many samples at once as there are.
        OSError: The disk is full, or may not be written to.
    """
    from ..training.compiling import CompileTrial, Compiling
    from ..training.loop import Diverged, Finished, Stepped, Validated
    from .judging.while_training import Evaluated
    from .judging.words import number

    settings, rate, smoothed, facts, finished = run.recipe.training, Rate(), None, "", False
    with bar() as progress:
        doing = _Doing(progress, "training", total=settings.steps, completed=run.state.step)
        for event in _told(run.events(stop), doing):
            if isinstance(event, Stepped) and (event.step % 10 == 0 or event.step == settings.steps):
                loss = float(event.loss)
                smoothed = loss if smoothed is None else 0.98 * smoothed + 0.02 * loss
                speed = rate(event.step * settings.batch_size)  # 0 until there are two moments to compare
                facts = f"  loss {smoothed:.4f}" + (f"  {speed:,.0f} samples/s" if speed else "")
                progress.update(doing.task, completed=event.step, facts=facts)
            elif isinstance(event, Validated):
                floor = f"  (Bayes floor {event.floor.loss:.4f})" if event.floor else ""
                more = "".join(f"  {name} {value:.4g}" for name, value in event.loss.more.items())
                say(f"step {event.step:>7,}  validation loss {event.loss.loss:.4f}{floor}{more}{facts}")
            elif isinstance(event, Evaluated):
                told = "  ".join(f"{name} {number(each.value)} ± {number(each.high - each.value)}" for name, each in
                                 event.estimates.items())  # fmt: skip
                say(f"step {event.step:>7,}  {told}{'  (best so far)' if event.best else ''}")
                for warning in event.warnings:
                    say(f"step {event.step:>7,}  warning: {warning}")
            elif isinstance(event, Compiling):
                say("trying whether a compiled network is faster, which takes a minute or two")
            elif isinstance(event, CompileTrial):
                say(f"note: {event}")
            elif isinstance(event, Diverged):
                if event.seen != run.state.step:
                    step, what = run.state.step, event.what
                    say(f"step {event.step:>7,}  {what}: going on from step {step:,} with half the learning rate")
                    smoothed = None
            elif isinstance(event, Finished):
                finished = not event.stopped
    return finished
