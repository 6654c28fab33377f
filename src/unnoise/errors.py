"""Every error that a user can cause, under one root.

    UnnoiseError
    ├── ShapeError            a tensor has another shape than its partner      (ValueError)
    ├── UnknownName           no member of a registry is called so             (LookupError)
    ├── BadOption             an option that does not exist or has a bad value (ValueError)
    ├── IncompatibleParts     parts that cannot work together                  (ValueError)
    ├── DataError             data that cannot be read or learned from         (ValueError)
    ├── ModelFolderError      a model folder that cannot be read               (RuntimeError)
    ├── RunFolderError        a run folder that cannot be used                 (RuntimeError)
    ├── TrainingDiverged      the loss or its gradient is no longer a number   (RuntimeError)
    ├── OutOfMemory           a step of training takes more than there is      (RuntimeError)
    ├── SamplingDiverged      what comes out of a step is no longer a number   (RuntimeError)
    ├── ToleranceNotMet       adaptive steps cannot be as accurate as asked    (RuntimeError)
    ├── WorkersLost           workers that share out work do not come, or die  (RuntimeError)
    ├── Busy                  more is asked for than can be taken on now       (RuntimeError)
    ├── Cancelled             somebody no longer wants what was asked for      (RuntimeError)
    ├── TookTooLong           what was asked for was not done in its time      (RuntimeError)
    ├── NoSuchJob             no request has such a number                     (LookupError)
    └── MissingExtra          an optional dependency is not installed          (ImportError)

A message says what was expected, what came, and what to do about it, in one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class UnnoiseError(Exception):
    """The root: whatever a user can mend. Faces print it as one line and exit with 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Some are made of more than their message, and all of them come back from other processes.
        return _made_again, (type(self), self.args), self.__dict__ or None


def _made_again(kind: type[UnnoiseError], args: tuple[Any, ...]) -> UnnoiseError:
    return kind.__new__(kind, *args)


class ShapeError(UnnoiseError, ValueError):
    """A tensor has another shape than its partner."""


class BadOption(UnnoiseError, ValueError):
    """An option that does not exist, or has a value of the wrong type or out of its range."""


class IncompatibleParts(UnnoiseError, ValueError):
    """Parts that cannot work together, such as noise prediction where no signal is left."""


class DataError(UnnoiseError, ValueError):
    """Data that cannot be read, or that nothing can be learned from."""


class ModelFolderError(UnnoiseError, RuntimeError):
    """A model folder that is missing, damaged, or of another format version."""


class RunFolderError(UnnoiseError, RuntimeError):
    """A run folder that belongs to another recipe, or cannot be resumed."""


class TrainingDiverged(UnnoiseError, RuntimeError):
    """The loss, its gradient or a weight became infinite or not a number."""


class OutOfMemory(UnnoiseError, RuntimeError):
    """A step of training needs more memory than there is."""


class SamplingDiverged(UnnoiseError, RuntimeError):
    """What came out of a sampler's step is infinite or not a number."""


class ToleranceNotMet(UnnoiseError, RuntimeError):
    """Adaptive steps cannot reach the accuracy that was asked for."""


class WorkersLost(UnnoiseError, RuntimeError):
    """Workers that share out work do not come up, or die over and over."""


class Busy(UnnoiseError, RuntimeError):
    """More is asked for than can be taken on now; later it may be."""


class Cancelled(UnnoiseError, RuntimeError):
    """Somebody no longer wants what was asked for."""


class TookTooLong(UnnoiseError, RuntimeError):
    """What was asked for was not done in the time that it had."""


class NoSuchJob(UnnoiseError, LookupError):
    """No request has such a number, or what it made was deleted."""


class MissingExtra(UnnoiseError, ImportError):
    """An optional dependency is not installed.

    Args:
        purpose: What needs it, as the subject of the sentence.
        module: The module that could not be imported.
        extra: The extra of unnoise that brings it.
    """

    def __init__(self, purpose: str, module: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {module}, which is not installed: pip install 'unnoise[{extra}]'")


class UnknownName(UnnoiseError, LookupError):
    """No member of a registry is called so.

    Args:
        kind: What the registry holds, such as "sampler".
        name: What was asked for.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        super().__init__(f"no {kind} is called {name!r}{nearest(name, known)}")


def nearest(name: object, known: Iterable[str]) -> str:
    """The clause that helps after a wrong name: the nearest known one, and all of them."""
    known = sorted(known)
    close = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(known) or 'none'})"
