"""How much an engine takes on."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import Checked, option


@dataclass(frozen=True)
class EngineSettings(Checked):
    """How much an engine takes on; what is over it is refused with a line that says so."""

    active: int = option(32, help="requests that are worked on at a time", low=1, high=4096)
    waiting: int = option(256, help="requests that wait for their turn at most", low=0, high=1_000_000)
    each_owner: int = option(64, help="requests of one owner, at work or waiting, at most", low=1, high=1_000_000)
    most_samples: int = option(1024, help="samples of one request at most", low=1)
    most_steps: int = option(1000, help="steps of one request at most", low=1, high=100_000)
    most_values: int = option(2**28, help="numbers that one request may make: samples times their size", low=1)
    most_kept: int = option(2**28, help="bytes of kept steps of one request at most", low=1)
    timeout: float = option(600.0, help="seconds from acceptance until a request is given up", low=0.001)
    strict: bool = option(False, help="never share network calls, so that every request rounds as if it were alone")
