"""Looks at a recipe or a run with all checks, and tells what was found, the worst first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Progress
from ..any_recipe import AnyRecipe
from .base import SEVERITIES, Finding, checks
from .patients import RecipePatient, patient_of
from .runs import DiffusionRunPatient, RunPatient, run_patient_of

TRY_SECONDS, SAMPLE_SECONDS = 5.0, 10.0


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        findings: The name of the check and what it found, the worst first.
        well: The names of the checks that found nothing.
        unknown: The names of those that could not tell.
        notes: What could not be looked at, a line each.
    """

    findings: tuple[tuple[str, Finding], ...]
    well: tuple[str, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "hint" for _, finding in self.findings)

    def named(self, *severities: str) -> list[str]:
        """The checks that found something of these severities, or of any where none is given."""
        return [name for name, finding in self.findings if not severities or finding.severity in severities]

    def as_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        found = [
            {"check": name, "severity": f.severity, "seen": f.seen, "cause": f.cause, "fix": f.fix}
            for name, f in self.findings
        ]
        return {
            "healthy": self.healthy,
            "findings": found,
            "well": list(self.well),
            "unknown": list(self.unknown),
            "notes": list(self.notes),
        }


def examine_recipe(recipe: AnyRecipe, seconds: float = TRY_SECONDS, progress: Progress | None = None) -> Diagnosis:
    """What is wrong with a recipe and its data; nothing is trained or written but for a trial of one batch, in memory.

    Args:
        recipe: What is asked for, of any kind.
        seconds: For the trial, about; 0 for none.
        progress: Told while data is read.

    Raises:
        DataError: There is no data that can be read.
    """
    patient = patient_of(recipe, seconds, progress)
    trial = patient.trial
    notes = () if trial is None else (
        f"tried: {len(trial.losses)} steps on one batch, its loss from {trial.losses[0]:.3g} to {trial.losses[-1]:.3g}",
    )  # fmt: skip
    return _diagnosis(_looked(patient), notes)


def examine_run(folder: str | Path, seconds: float = SAMPLE_SECONDS, progress: Progress | None = None) -> Diagnosis:
    """What is wrong with a run, and with its recipe, which may be the cause; the run is not changed.

    Args:
        folder: Of a run of any kind.
        seconds: For drawing samples, about.
        progress: Told while data is read.

    Raises:
        RunFolderError: It holds no run.
    """
    patient = run_patient_of(folder, seconds, progress)
    found, notes = _looked(patient), []
    if isinstance(patient, DiffusionRunPatient) and patient.samples is not None:
        notes.append(f"drawn: {len(patient.samples)} samples")
    if isinstance(patient.begun, RecipePatient):
        found |= _looked(patient.begun)
    else:
        notes.append(f"the recipe could not be looked at: {patient.begun}")
    return _diagnosis(found, tuple(notes))


def _looked(patient: RecipePatient | RunPatient) -> dict[str, list[Finding] | None]:
    """What each check that can look at a patient found; None where it found nothing and cannot tell either."""
    found: dict[str, list[Finding] | None] = {}
    for name, cls in checks.items():
        if isinstance(patient, cls.needs):
            check = cls()
            found[name] = list(check.look(patient)) or ([] if check.can_tell(patient) else None)
    return found


def _diagnosis(found: dict[str, list[Finding] | None], notes: tuple[str, ...]) -> Diagnosis:
    flat = [(name, finding) for name, findings in found.items() for finding in findings or ()]
    flat.sort(key=lambda pair: SEVERITIES.index(pair[1].severity))
    well = tuple(name for name, findings in found.items() if findings == [])
    return Diagnosis(tuple(flat), well, tuple(name for name, findings in found.items() if findings is None), notes)
