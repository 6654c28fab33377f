"""What a model learned from, read once and kept for as long as the model stays the same."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..data.base import Dataset
from ..errors import UnnoiseError
from ..model import Model
from ..recipes.run_data import run_data

KEPT = 4
"""Data sets in memory."""

_lock = threading.Lock()
_found: OrderedDict[str, Dataset | None] = OrderedDict()


def training_data(model: Model) -> Dataset | None:
    """The data of the run around a model; None where it is not known, or cannot be read any more.

    Args:
        model: As it was loaded.
    """
    key = f"{model.path}/{model.hash}"
    with _lock:
        if key not in _found:
            try:
                run = run_data(model)
            except (UnnoiseError, OSError):
                run = None
            _found[key] = None if run is None else run.train
            while len(_found) > KEPT:
                _found.popitem(last=False)
        _found.move_to_end(key)
        return _found[key]
