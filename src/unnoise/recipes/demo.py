"""The demo: trains two small models, measures what they make, and tells it on one page."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.base import Progress
from ..errors import MissingExtra
from .demo_findings import Effort, Trained, measure
from .demo_page import write_page
from .metrics import read_metrics
from .recipe import load_recipe
from .run import Run

RECIPES = ("spiral", "digits")


def make_demo(
    out: str | Path = "demo",
    *,
    overrides: Mapping[str, Sequence[str]] | None = None,
    effort: Effort | None = None,
    report: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Trains the models of the demo, or goes on with them, and writes the page that tells about them.

    Args:
        out: Gets `runs/spiral`, `runs/digits` and `index.html`.
        overrides: Texts such as "training.steps=100", by recipe.
        effort: How much is measured.
        report: Told what is being done, how many are done and how many there are.
        stop: Asked during training; when true, the run is saved and there is no page.

    Returns:
        The page, or None if it was asked to stop.

    Raises:
        MissingExtra: Matplotlib is not installed.
        RunFolderError: A run folder in `out` holds another recipe.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("the demo", "matplotlib", "demo")
    say = report if report is not None else lambda what, done, total: None
    trained = {}
    for name in RECIPES:
        one = train_or_go_on(name, Path(out) / "runs" / name, (overrides or {}).get(name, ()), say, stop)
        if one is None:
            return None
        trained[name] = one
    findings = measure(trained["spiral"], trained["digits"], effort if effort is not None else Effort(), say)
    say("writing the page", 0, 1)
    page = write_page(findings, Path(out))
    say("writing the page", 1, 1)
    return page


def train_or_go_on(
    name: str, folder: Path, overrides: Sequence[str], report: Progress, stop: Callable[[], bool]
) -> Trained | None:
    """A model of the demo, trained to its end; None if it was asked to stop before.

    Args:
        name: Of a shipped recipe.
        folder: Of its run, begun or not.
        overrides: Texts such as "training.steps=100".
        report: Told the steps.
        stop: Asked after every step.
    """
    run = Run(load_recipe(name, overrides), folder)
    what, total = f"training {name}", run.recipe.training.steps
    report(what, run.state.step, total)
    for _ in () if run.finished else run.events(stop):
        if run.state.step % 10 == 0 or run.finished:
            report(what, run.state.step, total)
    if not run.finished:
        return None
    facts: dict[str, Any] = {
        "batch_size": run.recipe.training.batch_size,
        "held_out": run.recipe.training.validation_share,
    }
    for line in read_metrics(folder / "metrics.jsonl"):
        facts |= line
    return Trained(name, folder, run.model(), run.train_data.part(), facts)
