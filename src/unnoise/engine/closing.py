"""What is going to stop: it accepts nothing more, and what is under way has some seconds left."""

from __future__ import annotations

from time import monotonic


class Closing:
    """An engine, or what stands before several."""

    _since: float | None = None
    hurried = False
    """Whether even what is under way is given up."""

    @property
    def closing(self) -> bool:
        """Whether nothing more is accepted."""
        return self._since is not None

    @closing.setter
    def closing(self, closes: bool) -> None:
        self._since = (monotonic() if self._since is None else self._since) if closes else None

    def left(self, grace: float) -> float:
        """Seconds that are left of `grace`, which began when nothing more was accepted.

        Args:
            grace: Seconds in all.
        """
        if self.hurried:
            return 0.0
        return max(0.0, grace if self._since is None else self._since + grace - monotonic())

    def hurry(self) -> None:
        """Gives up what is under way."""
        self.closing = self.hurried = True
