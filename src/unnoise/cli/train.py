"""`unnoise train`: from a recipe to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import DataProgress, StopSignals, say
from .recipe import STREAM, values_of

if TYPE_CHECKING:
    from ..recipes.run import Run
    from ..recipes.work import Work


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`unnoise list recipes`) or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Options by path, such as `training.lr=1e-4`.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data of yours: a folder of images, Parquet, shards, a URL, NPY/NPZ or CSV.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help=STREAM)] = False,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/RECIPE by default.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Start from this model: its network, process and codec replace the recipe's."),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(help="With --from: rank of low-rank adapters, which alone learn; saved by themselves too."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, data order, times and noise.")] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the recipe with every default, and stop.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the data, build the model, tell, and stop.")] = False,
) -> None:
    """Trains a model. The same command again goes on where it stopped.

    - `unnoise train spiral`

    - `unnoise train digits --out runs/my-digits training.steps=600 training.lr=1e-4`

    - `unnoise train images --data ~/Pictures/cats --out runs/cats data.size=32`

    - `unnoise train images --data 'shards/*.tar' --out runs/big machine.workers=8`

    - `unnoise train images --data ~/Pictures/cats --from runs/animals --lora 8 --out runs/cats start.lora.layers=attention`

    - `torchrun --nproc-per-node 4 -m unnoise train cifar10 machine.parallel=fsdp`

    Ctrl-C and SIGTERM save and stop; kill -9 loses at most the steps since the last checkpoint.
    """
    from ..errors import BadOption
    from ..recipes.recipe import load_any_recipe
    from ..recipes.run import Run
    from ..recipes.works import work_of
    from ..training.parallel import connected, leave, told_by_torchrun

    texts = list(overrides or [])
    if expanded := [text for text in texts if "=" not in text and Path(text).exists()]:
        raise BadOption(
            f"{expanded[0]} is no option: give --data a folder, or a pattern in quotes: --data 'shards/*.tar'"
        )
    values = values_of(recipe, data, stream)
    if lora is not None and start is None and not values.get("start") and not any(t.startswith("start") for t in texts):
        raise BadOption("--lora: adapters stand beside a model that is trained already: give it with --from MODEL")
    given = {"seed": seed, "start.lora.rank": lora, "start.model": start}
    checked = load_any_recipe(values, texts, **{path: value for path, value in given.items() if value is not None})
    if print_config:
        typer.echo(checked.yaml(), nl=False)
        return
    folder = out if out is not None else Path("runs") / Path(recipe).stem
    if dry_run:
        _tell(work_of(checked, DataProgress()), folder)
        return
    with connected(checked.machine.torch_device(told_by_torchrun().local_rank)) as processes:
        run = Run(checked, folder, DataProgress() if processes.first else None, processes)
        if processes.first:
            _run(run, folder)
        else:
            _follow(run)
    if processes.count > 1:
        leave()


def _run(run: Run, folder: Path) -> None:
    from ..recipes.watch import watch

    for note in run.notes:
        say(f"note: {note}")
    if run.finished:
        say(f"{folder} is trained already ({run.state.step:,} steps): nothing to do")
        return
    if run.state.step:
        say(f"going on from step {run.state.step:,}")
    with StopSignals() as stop:
        went_through = watch(run, stop)
        for note in run.late_notes():
            say(f"note: {note}")
        if not went_through:
            say(f"stopped and saved at step {run.state.step:,}; the same command goes on from there")
            sys.exit(128 + (stop.received or 0))
    say(run.work.goodbye(run.folder))


def _follow(run: Run) -> None:
    """What all processes but the first do: the same work, without a word."""
    with StopSignals() as stop:
        for _ in run.events(stop):
            pass


def _tell(work: Work, folder: Path) -> None:
    from ..data.inspect import few_samples

    spec, training = work.train.spec, work.recipe.training
    labels = f", {spec.num_classes} labels" if spec.num_classes else ""
    epochs = training.steps * training.batch_size / len(work.train)
    typer.echo(f"data      {len(work.train):,} samples of shape {spec.shape}{labels}, {len(work.held_out):,} held out")
    for line in work.skipped:
        typer.echo(f"skipped   {line}")
    for name, text in work.summary():
        typer.echo(f"{name:<9} {text}")
    typer.echo(f"training  {training.steps:,} steps of {training.batch_size} samples: {epochs:,.1f} times the data")
    if few := few_samples(len(work.train)):
        typer.echo(f"warning   {few}")
    typer.echo(f"out       {folder} (nothing was written)")
