"""What a check is: it looks at a recipe or at a run, and says what it finds wrong, why, and what to do about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...registry import Registry
from .patients import DiffusionPatient, RecipePatient
from .runs import DiffusionRunPatient, RunPatient

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

    needs: ClassVar[type]
    """The patients that it can look at; all others are not asked."""

    @abstractmethod
    def look(self, patient: Any) -> Iterator[Finding]:
        """What is wrong; nothing where all is well, or where it cannot be told."""

    def can_tell(self, patient: Any) -> bool:
        """Whether finding nothing means that all is well."""
        return True


class RecipeCheck(Check):
    """A check of a recipe of any kind and its data, before anything is trained."""

    needs = RecipePatient

    @abstractmethod
    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """What is wrong with a recipe; nothing where all is well, or where it cannot be told."""


class DiffusionCheck(Check):
    """A check of a recipe of a diffusion model and its data, before anything is trained."""

    needs = DiffusionPatient

    @abstractmethod
    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """What is wrong with a recipe; nothing where all is well, or where it cannot be told."""


class RunCheck(Check):
    """A check of a run of any kind, by what stands in its folder."""

    needs = RunPatient

    @abstractmethod
    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """What is wrong with a run; nothing where all is well, or where it cannot be told."""


class DiffusionRunCheck(Check):
    """A check of a run of a diffusion model, by what stands in its folder."""

    needs = DiffusionRunPatient

    @abstractmethod
    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """What is wrong with a run; nothing where all is well, or where it cannot be told."""


checks: Registry[Check] = Registry("check", "unnoise.recipes.diagnosis")
