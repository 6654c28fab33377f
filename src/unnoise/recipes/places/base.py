"""What bulk work is, and what a place is that does it.

Work on many samples is cut into parts that do not depend on one another. A part is a range of sample numbers; where it is done,
when, and beside which others changes nothing about what comes out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...options import Checked
from ...registry import Registry

Keep = Callable[[range, Any], None]
"""Given a part and what came out of it, puts it where it stays."""
Progress = Callable[[int, int], None]
"""Told how many are done, and how many there are."""


class Job(ABC):
    """Work that is done part by part. It travels to other processes, so that both it and what it gives can be pickled."""

    @abstractmethod
    def on(self, device: str) -> Job:
        """The same work on a device, giving the same up to what the device rounds.

        Args:
            device: cpu or cuda.
        """

    @abstractmethod
    def __call__(self, part: range, progress: Progress | None = None) -> Any:
        """Does a part.

        Args:
            part: The numbers of its samples.
            progress: Told how much of the part is done, and how much there is.
        """


class Place(Checked, ABC):
    """A frozen dataclass that says where work is done."""

    registered_name: ClassVar[str]
    elsewhere: ClassVar[bool]
    """Whether that is in other processes than this one."""

    @abstractmethod
    def run(
        self,
        job: Job,
        parts: Sequence[range],
        keep: Keep,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Does all parts, in any order.

        Args:
            job: The work.
            parts: Cut so that each is worth sending somewhere, and little is lost with one.
            keep: Called in this process with each part that is done.
            progress: Told how many samples are done, and how many there are.
            stop: Asked now and then; when true, parts in work are finished and kept, and no more are begun.

        Returns:
            Whether all parts are done.

        Raises:
            MissingExtra: The library that the place needs is not installed.
            WorkersLost: Workers do not come up, or die over and over.
            Exception: Whatever the job or `keep` raises.
        """


places: Registry[Place] = Registry("place", "unnoise.recipes.places")
