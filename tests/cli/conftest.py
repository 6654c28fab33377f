"""The command line, called in this process as a person calls it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
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


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    """A place for runs, and the folders of those that stand there by what was asked for."""
    return tmp_path_factory.mktemp("trained"), {}


@pytest.fixture
def trained(unnoise, _trained, tmp_path) -> Callable[..., Path]:
    """Runs `unnoise train ARGS`, once for all tests that ask for the same, and gives this one a copy of the run."""
    place, kept = _trained

    def call(name: str, *args: str) -> Path:
        if args not in kept:
            folder = place / str(len(kept))
            said = unnoise("train", *args, "--out", folder)
            assert said.code == 0, said
            kept[args] = folder
        return shutil.copytree(kept[args], tmp_path / name)

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
