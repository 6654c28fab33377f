"""What the distance between samples and data is made of: codec, denoiser, guidance and steps; and what to mend first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...evaluation.metrics.base import Estimate
from . import words
from .caption_finding import WordsFound
from .levels import Levels
from .run import Judged


@dataclass(frozen=True)
class Part:
    """A part of the distance.

    Args:
        name: Which: codec, denoiser, steps or guidance.
        value: By how much it takes the samples away from the data; negative where it brings them nearer.
        low: Lower end of the 95 % interval.
        high: Upper end.
        meaning: How it was found.
        remedy: What makes it smaller.
    """

    name: str
    value: float
    low: float
    high: float
    meaning: str
    remedy: str

    @property
    def sure(self) -> bool:
        """Whether it is more than chance."""
        return self.low > 0


@dataclass(frozen=True)
class ErrorParts:
    """A distance and its parts.

    Args:
        metric: What it is measured by.
        judged: The samples as they are asked for, with endlessly many steps, and without guidance too; the codec's pictures.
        floor: The same distance of real data that nobody learned; None where there is none.
        parts: That sum to what lies between the floor and the samples as they are asked for.
        levels: The error of the denoiser at each noise level.
        folder: Where all of it stands.
        words: Whether the model's words reach it, of models that know some.
        notes: What a person should know.
    """

    metric: str
    judged: Mapping[str, Judged]
    floor: Estimate | None
    parts: tuple[Part, ...]
    levels: Levels
    folder: Path
    words: WordsFound | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Part | None:
        """The largest part that is more than chance: what is to be mended first."""
        return max((part for part in self.parts if part.sure), key=lambda part: part.value, default=None)

    @property
    def sentence(self) -> str:
        """What to mend first, for a person."""
        deaf = "" if self.words is None or self.words.heard else f" {self.words.remedy}"
        first = self.first
        if first is None and deaf:
            return deaf.strip()
        if first is None:
            return "No part is more than chance: judge more samples (-n), or look elsewhere."
        worst = f" {self.levels.sentence}" if first.name == "denoiser" else ""
        return f"Mend the {first.name} first: {first.remedy}.{worst}{deaf}"

    @property
    def told(self) -> list[tuple[str, str]]:
        """What is to be known beside the parts: of words and of guidance, each with a name."""
        found, notes = ([], ()) if self.words is None else (self.words.lines(), self.words.notes)
        return [*(("note", note) for note in (*self.notes, *notes)), *found]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""

        def estimate(each: Estimate | None) -> Any:
            return None if each is None else {"value": each.value, "low": each.low, "high": each.high}

        return {
            "holds": "parts of an error",
            "metric": self.metric,
            "floor": estimate(self.floor),
            "judged": {name: estimate(each.result.estimates[self.metric]) for name, each in self.judged.items()},
            "parts": [
                {"name": p.name, "value": p.value, "low": p.low, "high": p.high, "sure": p.sure} for p in self.parts
            ],
            "levels": self.levels.plain(),
            "words": None if self.words is None else self.words.plain(),
            "notes": list(self.notes),
            "sentence": self.sentence,
        }


def table(parts: ErrorParts) -> list[Sequence[str]]:
    """A line for each part, headers first."""
    lines: list[Sequence[str]] = [("", words.title(parts.metric), "95 % interval")]
    if parts.floor is not None:
        lines.append(("real data", words.number(parts.floor.value), words.interval(parts.floor)))
    for part in parts.parts:
        between = f"{words.number(part.low)} to {words.number(part.high)}"
        lines.append((f"+ {part.name}: {part.meaning}", words.number(part.value), between))
    whole = parts.judged["as asked"].result.estimates[parts.metric]
    lines.append(("= samples as they are asked for", words.number(whole.value), words.interval(whole)))
    return lines
