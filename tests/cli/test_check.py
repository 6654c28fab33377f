"""`unnoise check samplers`."""

import io
import json
import sys

import pytest
import torch

from unnoise.samplers.base import samplers

MINE = '''
from __future__ import annotations
from dataclasses import dataclass
from unnoise.samplers.base import Sampler, Stepped, samplers, toward

@samplers.register("mine")
@dataclass(frozen=True)
class MySampler(Sampler):
    """Of first order, and asks {calls} times."""

    order, evaluations = 1, 1

    def step(self, denoiser, x_t, t, s, state, *, cond=None, noise=None):
        for _ in range({calls}):
            denoised = denoiser(x_t, t, cond)
        return Stepped(toward(denoised, x_t, denoiser.schedule, t, s), denoised, None)
'''


@pytest.fixture
def mine(tmp_path):
    """Writes a module with a sampler of one's own; it is forgotten afterwards."""
    samplers._discover()

    def write(calls):
        path = tmp_path / "my_samplers.py"
        path.write_text(MINE.format(calls=calls))
        return path

    yield write
    samplers._members.pop("mine", None)
    sys.modules.pop("my_samplers", None)


def test_the_table_of_a_sampler_that_is_right(unnoise, tmp_path):
    file = tmp_path / "proof.json"
    said = unnoise("check", "samplers", "euler", "ddpm", "--quick", "--json", file)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert f"torch {torch.__version__}" in lines[0]
    assert "device cpu, dtype float64" in lines[0]
    assert lines[1].split()[:4] == ["sampler", "order", "measured", "to"]
    assert lines[2].split()[:4] == ["euler", "1", "1.00", "✓"]
    assert "✗" not in said.out
    assert "3 of 3 samplers are as they should be" in lines[-1]
    found = json.loads(file.read_text())
    assert found["good"]
    assert found["torch"] == torch.__version__
    assert [(each["name"], each["options"]) for each in found["samplers"]] == [
        ("euler", {}), ("ddpm", {}), ("ddpm", {"variance": "beta"}),
    ]  # fmt: skip
    checks = found["samplers"][0]["checks"]
    assert checks["measured"]["value"] == pytest.approx(1, abs=0.05)
    assert checks["measured"]["good"] is True
    assert checks["spread"] == {"good": None, "value": None, "shown": "-", "note": ""}


def test_a_wrong_sampler_of_ones_own_is_crossed_and_the_exit_code_is_1(unnoise, mine):
    said = unnoise("check", "samplers", "mine", "--quick", "--module", mine(calls=2))
    assert said.code == 1
    assert said.out.splitlines()[2].count("✗") == 1
    assert (
        "✗ mine: calls 4: 4 calls in 2 steps for 2 steps that stop early; expected the 2 calls that it states"
        in said.out
    )
    assert "0 of 1 samplers" in said.out


def test_a_right_sampler_of_ones_own_passes_and_markdown_is_a_table(unnoise, mine, monkeypatch):
    monkeypatch.syspath_prepend(mine(calls=1).parent)
    said = unnoise("check", "samplers", "mine", "--quick", "--markdown", "--module", "my_samplers")
    assert said.code == 0, said
    table = [line for line in said.out.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert {line.count("|") for line in table} == {11}
    assert table[2].startswith("| mine | 1 | 1.00 ✓ |")


def test_what_cannot_be_checked_is_one_line(refused, tmp_path):
    assert "did you mean 'heun'" in refused("check", "samplers", "huen")
    assert "there is no file" in refused("check", "samplers", "--module", tmp_path / "none.py")
    assert "no_such_module_at_all" in refused("check", "samplers", "--module", "no_such_module_at_all")


def test_a_terminal_without_the_signs_gets_words(unnoise, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    unnoise("check", "samplers", "euler", "--quick")
    assert b"1.00 ok" in stream.buffer.getvalue()
