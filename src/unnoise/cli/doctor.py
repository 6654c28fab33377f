"""`unnoise doctor`: what is wrong with a recipe or a run, why, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import DataProgress
from .recipe import STREAM, values_of

if TYPE_CHECKING:
    from ..recipes.diagnosis.examine import Diagnosis


def doctor(
    patient: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A shipped recipe, a YAML file, or the folder of a run.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options of a recipe by path, such as `training.lr=1e-4`.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data of yours, as for `unnoise train`.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help=STREAM)] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="For learning one batch of a recipe (0 for none), or for drawing samples of a run.", min=0),
    ] = None,
    trial: Annotated[
        bool, typer.Option("--try/--no-try", help="Whether to see if a recipe's network learns one batch by heart.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Looks for what is wrong: with a recipe and its data before it is trained, or with a run and what came out of it.

    - `unnoise doctor images --data ~/Pictures/cats training.lr=1e-2`

    - `unnoise doctor runs/digits`

    Everything that it finds comes with a cause and a fix that can be pasted. It exits with 0 where nothing but hints is found, and
    with 1 where there are errors or warnings. `unnoise list checks` tells what it looks for.
    """
    from ..errors import BadOption
    from ..recipes.diagnosis.examine import SAMPLE_SECONDS, TRY_SECONDS, examine_recipe, examine_run
    from ..recipes.recipe import load_any_recipe

    if Path(patient).is_dir():
        if overrides or data is not None or stream:
            raise BadOption(
                f"{patient} is a run, which has its options and data: give its recipe.yaml to look at others"
            )
        found = examine_run(patient, SAMPLE_SECONDS if seconds is None else seconds, DataProgress())
    else:
        checked = load_any_recipe(values_of(patient, data, stream), list(overrides or []))
        found = examine_recipe(checked, (TRY_SECONDS if seconds is None else seconds) if trial else 0.0, DataProgress())
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(_lines(found)))
    if not found.healthy:
        raise typer.Exit(1)


def _lines(found: Diagnosis) -> list[str]:
    lines = []
    for name, finding in found.findings:
        lines.append(f"{finding.severity:<8} {name}: {finding.seen}")
        lines.append(f"{'':<8} {finding.cause}")
        if finding.fix:
            lines.append(f"{'':<8} fix: {finding.fix}")
        lines.append("")
    lines += [f"{'note':<8} {note}" for note in found.notes]
    if found.unknown:
        lines.append(f"{'unknown':<8} {', '.join(found.unknown)}")
    what = "well" if found.findings or found.unknown else "all well"
    return [*lines, f"{what:<8} {', '.join(found.well)}"]
