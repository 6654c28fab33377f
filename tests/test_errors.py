"""Errors: they come back whole from other processes."""

import copy
import pickle

import pytest

from unnoise import errors
from unnoise.errors import MissingExtra, UnknownName, UnnoiseError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UnnoiseError)]
MADE_OF_MORE = {MissingExtra: ("the picture", "matplotlib", "plot"), UnknownName: ("sampler", "hoin", ["heun"])}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_comes_back_from_another_process_as_it_was(kind):
    error = kind(*MADE_OF_MORE.get(kind, ("what came",)))
    error.add_note("said by a worker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert again.args == error.args
        assert again.__notes__ == ["said by a worker"]
