"""What a sampler promises, measured on this machine: a row of findings for each, every one right or wrong.

Everything runs on the CPU in float64, but for one check in float32, on data for which the answer is known exactly, see
`problems`. The contract tests of the repository hold samplers to the same promises, on other problems and with another integrator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...options import option_fields, plain
from ...samplers.base import Sampler, family
from . import accuracy, conduct
from .base import Finding

CHECKS: dict[str, Callable[[Sampler, bool], Finding]] = {
    "measured": accuracy.order,
    "to data": accuracy.order_to_data,
    "calls": conduct.calls,
    "ends": conduct.ends,
    "batch": conduct.batch,
    "interleaved": conduct.interleaved,
    "spread": accuracy.spread,
}

MEANING = {
    "measured": "order of the error inside the interval, the least of all schedules and spacings; or the error in tolerances",
    "to data": "the same on the whole way from noise to clean data, where order 2 is enough",
    "calls": "network calls made, in runs of 1 to 1,000 steps on all grids; as many as stated",
    "ends": "distance from clean data that is known exactly, after as little as one step, on every schedule",
    "batch": "difference between a sample in a batch and alone",
    "interleaved": "difference between a run beside another of the same object and alone",
    "spread": "error of mean and deviation of what a stochastic sampler draws, in the limit of many steps",
}


@dataclass(frozen=True)
class Row:
    """What was found about one sampler.

    Args:
        name: Of the sampler.
        options: Those that are not its defaults.
        order: The order it states.
        findings: By the name of the check.
        seconds: How long it took.
    """

    name: str
    options: dict[str, Any]
    order: int | None
    findings: dict[str, Finding]
    seconds: float

    @property
    def label(self) -> str:
        """The name and the options."""
        return " ".join([self.name, *(f"{key}={_short(value)}" for key, value in self.options.items())])

    @property
    def wrong(self) -> dict[str, Finding]:
        """The findings that are not as expected."""
        return {name: each for name, each in self.findings.items() if each.good is False}


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


def chosen(names: Sequence[str] = ()) -> list[Sampler]:
    """The samplers of some names, or all that are registered, each with all options that it is proven with.

    Raises:
        UnknownName: No sampler is called so.
    """
    return family(names, proven_too=True)


def proof(members: Sequence[Sampler], quick: bool = False) -> Iterator[Row]:
    """A row for each sampler, as it is found.

    Args:
        members: Which.
        quick: Two schedules instead of four, and fewer step counts.
    """
    for sampler in members:
        began = time.perf_counter()
        findings = {name: _tried(check, sampler, quick) for name, check in CHECKS.items()}
        fields = option_fields(type(sampler))
        options = {k: v for k, v in plain(sampler).items() if getattr(sampler, k) != fields[k].default}
        yield Row(sampler.registered_name, options, sampler.order, findings, time.perf_counter() - began)


def _tried(check: Callable[[Sampler, bool], Finding], sampler: Sampler, quick: bool) -> Finding:
    try:
        return check(sampler, quick)
    except Exception as error:  # whatever a sampler under proof does wrong is a finding, and the others go on
        said = " ".join(str(error).split())
        return Finding("error", False, None, f"{type(error).__name__}: {said}")
