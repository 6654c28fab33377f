"""`unnoise check`: whether this installation does what it promises, measured where it runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import bar

if TYPE_CHECKING:
    from ..evaluation.proof.base import Finding
    from ..evaluation.proof.samplers import Row

check_app = typer.Typer(no_args_is_help=True, help="Proves what this installation does.", rich_markup_mode="markdown")


@check_app.callback()
def check() -> None:
    """Proves what this installation does, on problems whose answers are known exactly."""


@check_app.command("samplers")
def check_samplers(
    names: Annotated[list[str] | None, typer.Argument(help="See `unnoise list samplers`; all by default.")] = None,
    module: Annotated[
        str | None,
        typer.Option(help="A module or a .py file that registers samplers of your own; its code is run."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two schedules and fewer steps.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all that was found to a file.")] = None,
) -> None:
    """Measures every sampler: its order, its network calls, its ends, its independence, what it draws.

    - `unnoise check samplers`

    - `unnoise check samplers arc heun --json proof.json`

    - `unnoise check samplers mine --module my_samplers.py`

    Exit code 1 if anything is not as it should be.
    """
    from ..evaluation.proof.samplers import CHECKS, MEANING, chosen, proof

    if module is not None:
        _load(module)
    members = chosen(names or ())
    about = _about()
    typer.echo(", ".join(f"{key} {value}" for key, value in about.items()) + ("\n" if markdown else ""))
    rows: list[Row] = []
    with bar() as progress:
        task = progress.add_task("samplers", total=len(members), facts="")
        for row in proof(members, quick):
            rows.append(row)
            progress.update(task, completed=len(rows), facts=f"  {row.label}")
    header = ["sampler", "order", *CHECKS, "s"]
    table = [header, *([row.label, *_cells(row)] for row in rows)]
    for line in _markdown(table) if markdown else _aligned(table):
        typer.echo(line)
    typer.echo("")
    for name, meaning in {} if markdown else MEANING.items():
        typer.echo(f"{name:<12} {meaning}")
    wrong = [f"{row.label}: {name} {each.shown}: {each.note}" for row in rows for name, each in row.wrong.items()]
    for line in wrong:
        typer.echo(f"{_mark(False)} {line}")
    bad = sum(bool(row.wrong) for row in rows)
    seconds = sum(row.seconds for row in rows)
    typer.echo(f"{len(rows) - bad} of {len(rows)} samplers are as they should be ({seconds:.0f} s)")
    if json_file is not None:
        found = {**about, "quick": quick, "good": not bad, "samplers": [_plain(row) for row in rows]}
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    if bad:
        raise typer.Exit(1)


def _load(module: str) -> None:
    from ..errors import BadOption

    path = Path(module)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise BadOption(f"module: there is no file {module}")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = loaded  # dataclasses look up the module of their annotations
        spec.loader.exec_module(loaded)
        return
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadOption(f"module: {error}; give a .py file, or a module that Python finds") from None


def _about() -> dict[str, str]:
    import torch

    return {
        "unnoise": version("unnoise"),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "dtype": "float64",
        "threads": str(torch.get_num_threads()),
    }


def _mark(good: bool | None) -> str:
    if good is None:
        return ""
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok" if good else "WRONG"
    return "✓" if good else "✗"


def _cells(row: Row) -> list[str]:
    found = [f"{each.shown} {_mark(each.good)}".strip() for each in row.findings.values()]
    return [str(row.order or "-"), *found, f"{row.seconds:.1f}"]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in table
    ]


def _markdown(table: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return [lines[0], f"| --- |{' ---: |' * (len(table[0]) - 1)}", *lines[1:]]


def _plain(row: Row) -> dict[str, Any]:
    def finding(found: Finding) -> dict[str, Any]:
        value = found.value if found.value is None or math.isfinite(found.value) else None  # JSON knows no infinity
        return {"good": found.good, "value": value, "shown": found.shown, "note": found.note}

    return {
        "name": row.name,
        "options": row.options,
        "order": row.order,
        "good": not row.wrong,
        "seconds": round(row.seconds, 2),
        "checks": {name: finding(found) for name, found in row.findings.items()},
    }
