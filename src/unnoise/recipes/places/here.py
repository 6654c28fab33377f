"""This process, one part after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .base import Job, Keep, Place, Progress, places


@places.register("here")
@dataclass(frozen=True)
class Here(Place):
    """In this process, one part after the other."""

    elsewhere: ClassVar[bool] = False

    def run(
        self,
        job: Job,
        parts: Sequence[range],
        keep: Keep,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """See `Place.run`."""
        done, total = 0, sum(map(len, parts))
        for part in parts:
            if stop():
                return False

            def tell(step: int, steps: int, at: int = done, count: int = len(part)) -> None:
                if progress is not None:
                    progress(at + count * step // max(steps, 1), total)

            keep(part, job(part, tell))
            done += len(part)
            tell(0, 1, at=done)
        return True
