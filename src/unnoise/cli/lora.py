"""`unnoise lora`: what fine-tuning has learned, in and out of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .progress import say

lora_app = typer.Typer(
    no_args_is_help=True, help="Adapters: put what a run with --lora learned into a model, or get it out."
)

_Base = Annotated[Path, typer.Argument(help="The model that they were learned beside: a model folder or a run folder.")]


@lora_app.command("merge")
def merge(
    base: _Base,
    adapters: Annotated[list[str], typer.Argument(help="Adapters or runs that made one: PATH or PATH:STRENGTH.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the new model.")],
    strength: Annotated[float, typer.Option(help="Of those that say none: 0 is none of it, 1 what was learned.")] = 1.0,
) -> None:
    """Writes a model with adapters merged into its weights; it samples as fast as the base.

    - `unnoise lora merge runs/animals runs/cats -o models/cats`

    - `unnoise lora merge runs/animals runs/cats:0.8 sketch/lora.safetensors:0.5 -o models/sketched-cats`
    """
    from ..adapter import adapter_spec
    from ..recipes.adapters import check_free, merged

    check_free(out)
    model = merged(base, [adapter_spec(text, strength) for text in adapters])
    for note in model.notes:
        say(f"note: {note}")
    typer.echo(model.save(out))


@lora_app.command("extract")
def extract(
    base: _Base,
    tuned: Annotated[Path, typer.Argument(help="A model of the same network, trained further from it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The adapter's file.")] = Path("lora.safetensors"),
    rank: Annotated[int, typer.Option(help="Rank of what is kept of each layer's change.")] = 8,
    layers: Annotated[str, typer.Option(help="Layers, by patterns with commas between; or all, linear, conv.")] = "all",
) -> None:
    """Writes what a model has learned since another as an adapter: the nearest one of its rank.

    - `unnoise lora extract runs/animals runs/cats-all-weights --rank 16 -o cats.safetensors`
    """
    from ..recipes.adapters import extracted

    adapter, kept = extracted(base, tuned, rank, layers)
    typer.echo(adapter.save(out))
    say(f"{len(adapter.factors)} layers at rank {rank} hold {kept:.1%} of the change of their weights (its square)")
