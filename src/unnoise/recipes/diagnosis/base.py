"""What a check is: it looks at a recipe or at a run, and says what it finds wrong, why, and what to do about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ...registry import Registry
from .patients import RecipePatient, RunPatient

Severity = Literal["error", "warning", "hint"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or could be better.

    Args:
        severity: "error" spoils the run, "warning" makes it worse than it need be, "hint" is worth a thought.
        seen: What was found, with the number.
        cause: The likely reason, or what comes of it.
        fix: Options or a command that can be pasted; empty where there is none.
    """

    severity: Severity
    seen: str
    cause: str
    fix: str = ""


class Check(ABC):
    """One thing that may be wrong. Its first line of documentation says which."""

    @abstractmethod
    def look(self, patient: Any) -> Iterator[Finding]:
        """What is wrong; nothing where all is well, or where it cannot be told."""

    def can_tell(self, patient: Any) -> bool:
        """Whether finding nothing means that all is well."""
        return True


class RecipeCheck(Check):
    """A check of a recipe and its data, before anything is trained."""

    @abstractmethod
    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """What is wrong with a recipe; nothing where all is well, or where it cannot be told."""


class RunCheck(Check):
    """A check of a run, by what stands in its folder."""

    @abstractmethod
    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """What is wrong with a run; nothing where all is well, or where it cannot be told."""


checks: Registry[Check] = Registry("check", "unnoise.recipes.diagnosis")
