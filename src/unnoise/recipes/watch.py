"""Progress on stderr: a live bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from .run import Run

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
        task = progress.add_task("training", total=settings.steps, completed=run.state.step, facts="")
        for event in run.events(stop):
            if isinstance(event, Stepped) and (event.step % 10 == 0 or event.step == settings.steps):
                loss = float(event.loss)
                smoothed = loss if smoothed is None else 0.98 * smoothed + 0.02 * loss
                speed = rate(event.step * settings.batch_size)  # 0 until there are two moments to compare
                facts = f"  loss {smoothed:.4f}" + (f"  {speed:,.0f} samples/s" if speed else "")
                progress.update(task, completed=event.step, facts=facts)
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
