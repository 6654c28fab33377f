"""Answers of several replicas, made one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine.job import ENDS


def figures(texts: Mapping[str, str]) -> str:
    """The figures of all, each with the label `replica`.

    Args:
        texts: As Prometheus reads them, by whose they are.
    """
    heads: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for replica, text in texts.items():
        for line in text.splitlines():
            if line.startswith("# "):
                head = heads.setdefault(line.split()[2], [])
                if line not in head:
                    head.append(line)
            elif line:
                name, brace, rest = line.partition("{")
                name, value = (name, "") if brace else name.split(" ", 1)
                label = f'replica="{replica}"'
                told = f"{name}{{{label},{rest}" if brace else f"{name}{{{label}}} {value}"
                rows.setdefault(name, []).append(told)
    return "\n".join([line for name in rows for line in (*heads.get(name, ()), *rows[name])] + [""])


def jobs(lists: Iterable[list[dict[str, Any]]], most: int) -> list[dict[str, Any]]:
    """The newest jobs of all, each once.

    Args:
        lists: What each tells: its own jobs, and the results that all have in common.
        most: How many.
    """
    found: dict[str, dict[str, Any]] = {}
    for facts in (each for told in lists for each in told):
        known = found.get(facts["id"])
        # Where one has seen it run, and another one a moment later its result, the later is true.
        if known is None or known["state"] not in ENDS:
            found[facts["id"]] = facts
    return [found[number] for number in sorted(found, reverse=True)][:most]
