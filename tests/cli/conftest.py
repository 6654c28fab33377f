"""The command line, called in this process as a person calls it."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def unnoise(monkeypatch, capsys) -> Callable[..., Said]:
    """Runs `unnoise ARGS` and tells the exit code, stdout and stderr."""
    from unnoise.cli.main import run

    def call(*args: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        capsys.readouterr()
        try:
            run()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def refused(unnoise) -> Callable[..., str]:
    """Runs `unnoise ARGS`, which must fail with exit code 2 and one line on stderr; returns the line."""

    def call(*args: object) -> str:
        said = unnoise(*args)
        lines = [line for line in said.err.splitlines() if line.strip() and not line.startswith(("note: ", "step "))]
        assert said.code == 2, said
        assert len(lines) == 1, said
        assert "Traceback" not in said.err
        return lines[0]

    return call
