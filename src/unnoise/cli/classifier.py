"""`unnoise classifier`: a classifier of noisy data, by which a model can be guided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .places import DEVICE
from .progress import DataProgress, bar, say


def classifier(
    model: Annotated[Path, typer.Argument(help="The model that it shall guide: its folder, or the run around it.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options of the network and of learning: `network.width=48`, `lr=1e-3`.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder that it is written to.")] = Path("classifier"),
    data: Annotated[
        str | None, typer.Option(help="Labelled data; what the model's run learned from by default.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates.")] = 3000,
    network: Annotated[str | None, typer.Option(help="mlp or encoder; what suits the data by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
) -> None:
    """Learns a classifier of noisy data from a model's training data; it can then guide that model, even one without labels.

    - `unnoise classifier runs/digits -o runs/judge`

    - `unnoise sample runs/digits --label 3 --guidance classifier:3 guidance.classifier=runs/judge -o threes.png`
    """
    from ..errors import BadOption
    from ..model import Model
    from ..options import build
    from ..recipes.classifier import learn_classifier
    from ..recipes.recipe import parse_override
    from ..training.classifier import ClassifierSettings

    values: dict[str, Any] = {"steps": steps, "seed": seed}
    options: dict[str, Any] = {}
    for text in overrides or []:
        path, value = parse_override(text)
        if len(path) == 2 and path[0] == "network":
            options[path[1]] = value
        elif len(path) == 1:
            values[path[0]] = value
        else:
            raise BadOption(f"{text}: expected network.OPTION=value, or an option of learning such as lr=1e-3")
    settings = build(ClassifierSettings, values)
    loaded = Model.load(model)
    for note in loaded.notes:
        say(f"note: {note}")
    with bar() as progress:
        task = progress.add_task("learning", total=steps, facts="")
        learned = learn_classifier(
            loaded, out, settings, data=data, network=network, options=options or None, device=device,
            reading=DataProgress(), progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    for note in learned.notes:
        say(f"note: {note}")
    on = f"{learned.held_out} held-out samples" if learned.held_out else "the training samples themselves"
    typer.echo(f"labels found, on {on}; chance is {learned.chance:.1%}")
    for noise, share in learned.accuracy.items():
        typer.echo(f"  at {noise:g} of noise to 1 of signal  {share:.1%}")
    typer.echo(f"{out}")
