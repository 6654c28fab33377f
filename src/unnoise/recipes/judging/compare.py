"""Models, or settings of one model, side by side: who is better by which number, and whether that is more than chance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Progress
from ...errors import BadOption, DataError, MissingExtra
from ...evaluation.metrics.base import Estimate, metrics
from ...files import write_atomically
from ...pictures.intervals import interval_plot
from ...pictures.page import Page, Picture
from . import words
from .page import HALF, WIDE, picture_of
from .plan import EvaluationSettings
from .real import RealData
from .run import Judged, default_folder, find_subject, judge
from .subject import Subject

_Z = 1.959963984540054  # of a two-sided interval of 95 %
SURE = 0.05
"""The chance of an error, over all comparisons of a metric together."""


@dataclass(frozen=True)
class Standing:
    """One subject by one metric.

    Args:
        estimate: Its number.
        best: Whether nobody's number is better.
        p: How likely a difference to the best as large as this one were by chance, corrected for the number of
            comparisons; None for the best.
    """

    estimate: Estimate
    best: bool
    p: float | None

    @property
    def worse(self) -> bool:
        """Whether it is worse than the best by more than chance explains."""
        return self.p is not None and self.p < SURE


@dataclass(frozen=True)
class Comparison:
    """Subjects by metrics.

    Args:
        judged: Every subject, judged alone.
        names: What each is called.
        standings: Of every subject, by metric; None where a subject has no such number.
        folder: Where the comparison stands.
    """

    judged: tuple[Judged, ...]
    names: tuple[str, ...]
    standings: Mapping[str, tuple[Standing | None, ...]]
    folder: Path


def parse_subject(text: str) -> tuple[str, dict[str, Any]]:
    """A path, and how the model there is sampled: `runs/digits` or `runs/digits@steps=5,guidance=2`.

    Raises:
        BadOption: What stands after the @ is not of the form option=value,...
    """
    path, at, options = text.rpartition("@")
    if not at or "=" not in options or Path(text).exists():
        return text, {}
    asked: dict[str, Any] = {}
    for part in options.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise BadOption(f"{text}: expected PATH@option=value,option=value, such as runs/digits@steps=5,guidance=2")
        asked[name.strip()] = value.strip()
    return path, asked


def significance(values: Sequence[Estimate | None], better: str) -> tuple[Standing | None, ...]:
    """Who is best, and whether the others are worse by more than chance explains.

    Differences are held against the spread of both numbers. Subjects that share their real data share its chance too, so
    that a difference is surer than it is taken for, never less sure.

    Args:
        values: Of every subject by one metric.
        better: "lower" or "higher".

    References:
        A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979), https://www.jstor.org/stable/4615733
    """
    known = [(i, each) for i, each in enumerate(values) if each is not None]
    if not known:
        return tuple(None for _ in values)
    sign = 1 if better == "lower" else -1
    first, best = min(known, key=lambda pair: sign * pair[1].value)
    raw = {i: _p(each, best) for i, each in known if i != first}
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, i in enumerate(sorted(raw, key=lambda i: raw[i])):
        highest = max(highest, min(1.0, raw[i] * (len(raw) - rank)))
        corrected[i] = highest
    return tuple(
        None if each is None else Standing(each, i == first, corrected.get(i)) for i, each in enumerate(values)
    )


def _p(a: Estimate, b: Estimate) -> float:
    """The chance of so large a difference between two numbers with normal errors, were they equal."""
    spread = math.hypot(*((each.high - each.low) / 2 / _Z for each in (a, b)))
    if spread == 0:
        return 1.0 if a.value == b.value else 0.0
    return math.erfc(abs(a.value - b.value) / spread / math.sqrt(2))


def compare(
    subjects: Sequence[str],
    *,
    data: str | None = None,
    train: str | None = None,
    n: int | None = None,
    settings: EvaluationSettings | None = None,
    size: int = 0,
    seed: int = 0,
    out: str | Path = "comparison",
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
) -> Comparison | None:
    """Judges each subject by the same real data and the same number of samples, and says who is better.

    Args:
        subjects: At least two, as `parse_subject` reads them.
        data: Real data; what the models learned by default, which must be the same.
        train: The data that must not be copied.
        n: Samples of each; by default as many as `evaluate` takes, but never more than the smallest folder holds.
        settings: What is measured.
        size: Side that pictures are brought to.
        seed: Of the noise.
        out: Where the comparison is kept.
        progress: Told what is being done.
        stop: Asked between blocks of samples.
        command: The command that a person gave, for the page.

    Returns:
        The comparison; None where it was stopped.

    Raises:
        BadOption: There are fewer than two subjects.
        DataError: They were not trained on the same data, and no data is given.
        UnnoiseError: As in `evaluate`.
    """
    if len(subjects) < 2:
        raise BadOption(f"a comparison needs at least two models or folders, got {len(subjects)}")
    settings = EvaluationSettings(seed=seed) if settings is None else settings
    found = [_find(text, data, train, size, settings, progress) for text in subjects]
    hashes = {real.reference.fingerprint() for _, real in found}
    if len(hashes) > 1:
        raise DataError("these models learned from different data: say with --data what all are compared with")
    limits = [subject.most for subject, _ in found if subject.most is not None]
    if limits:
        n = min(limits) if n is None else min(n, *limits)
    judged = []
    for subject, real in found:
        one = judge(subject, real, settings, default_folder(subject), n, progress, stop)
        if one is None:
            return None
        judged.append(one)
    names = _names(subjects)
    wanted = dict.fromkeys(name for one in judged for name in one.result.estimates)
    standings = {
        name: significance([one.result.estimates.get(name) for one in judged], metrics[name].better) for name in wanted
    }
    comparison = Comparison(tuple(judged), names, standings, Path(out))
    _keep(comparison, found[0][1], command)
    return comparison


def _find(
    text: str, data: str | None, train: str | None, size: int, settings: EvaluationSettings, progress: Progress | None
) -> tuple[Subject, RealData]:
    from .subject import is_model

    path, asked = parse_subject(text)
    if is_model(path):
        asked.setdefault("seed", settings.seed)
    return find_subject(path, asked, data=data, train=train, size=size, progress=progress, copies=settings.memorisation)


def _names(subjects: Sequence[str]) -> tuple[str, ...]:
    """Short names: the last part of each path with its settings, or the whole where that is not enough."""
    short = [f"{Path(parse_subject(text)[0]).name}{text[len(parse_subject(text)[0]) :]}" for text in subjects]
    return tuple(short if len(set(short)) == len(short) else subjects)


def table(comparison: Comparison) -> list[list[str]]:
    """A line for each metric and one for copies, a column for each subject, headers first."""
    lines = [["", *comparison.names, "better"]]
    for name, row in comparison.standings.items():
        lines.append([words.title(name), *(_cell(each) for each in row), metrics[name].better])
    if all(one.result.memorisation is not None for one in comparison.judged):
        copies = [one.result.memorisation.verdict for one in comparison.judged if one.result.memorisation is not None]
        lines.append(["copies", *copies, ""])
    return lines


def _cell(standing: Standing | None) -> str:
    if standing is None:
        return ""
    value = f"{words.number(standing.estimate.value)} ({words.interval(standing.estimate)})"
    if standing.best:
        return f"{value} best"
    return f"{value} {'worse' if standing.worse else 'not shown worse'}, p {standing.p:.2g}"


def _keep(comparison: Comparison, real: RealData, command: str) -> None:
    folder = comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "holds": "comparison",
        "subjects": {name: one.result.values for name, one in zip(comparison.names, comparison.judged, strict=True)},
        "standings": {
            name: [None if each is None else {"best": each.best, "p": each.p, "worse": each.worse} for each in row]
            for name, row in comparison.standings.items()
        },
    }
    write_atomically(folder / "comparison.json", (json.dumps(values, indent=1) + "\n").encode())
    page = Page("Which is better?", ", ".join(comparison.names))
    page.heading("The numbers")
    head, *lines = table(comparison)
    n = comparison.judged[0].result.values["subject"]["n"]
    page.table(
        head,
        lines,
        f"{n:,} samples of each, 95 % intervals. *Worse* is said where a difference to the best as large as this one "
        f"would come by chance in fewer than {SURE:.0%} of cases, over all subjects together.",
    )
    _draw(page, comparison)
    page.heading("Samples")
    drawn = [
        (name, picture_of(one.result.made, real)) for name, one in zip(comparison.names, comparison.judged, strict=True)
    ]
    page.columns([Picture(each, name, f"Samples of {name}", HALF) for name, each in drawn if each is not None])
    page.heading("Each alone")
    page.text(
        "\n".join(f"- {name}: `{one.page}`" for name, one in zip(comparison.names, comparison.judged, strict=True))
    )
    if command:
        page.code(command)
    page.save(folder / "index.html")


def _draw(page: Page, comparison: Comparison) -> None:
    panels = {
        words.title(name): [
            None if each is None else (each.estimate.value, each.estimate.low, each.estimate.high) for each in row
        ]
        for name, row in comparison.standings.items()
    }
    better = {words.title(name): metrics[name].better for name in comparison.standings}
    baseline = comparison.judged[0].result.baseline
    references = {words.title(name): baseline[name].value for name in comparison.standings if name in baseline}
    try:
        drawn = interval_plot(comparison.names, panels, better=better, references=references)
    except MissingExtra:
        return
    page.picture(
        drawn,
        "95 % intervals. The dashed line is real data that was set aside, measured in the same way.",
        "Intervals",
        WIDE,
    )
