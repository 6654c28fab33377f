"""`unnoise plan`: what a run would take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import DataProgress
from .recipe import STREAM, values_of

if TYPE_CHECKING:
    from ..recipes.planning import Plan


def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`unnoise list recipes`) or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Options by path, such as `training.steps=1000000`.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data of yours, as for `unnoise train`.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help=STREAM)] = False,
    gpus: Annotated[int, typer.Option("--gpus", help="Devices that share each batch.", min=1)] = 1,
    device: Annotated[
        str, typer.Option(help="What they are: h100, a100, l40s ..., or `this` for more of what is here.")
    ] = "this",
    price: Annotated[float | None, typer.Option(help="Of one device for an hour, in any currency.", min=0)] = None,
    seconds: Annotated[float, typer.Option(help="For which steps are measured here.", min=0)] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Says what a run of any kind would take: memory, time, storage, network and money. Nothing of it is trained or written.

    - `unnoise plan digits`

    - `unnoise plan images --data ~/Pictures/cats --gpus 64 --device h100 --price 2.5 training.batch_size=2048`
    """
    from ..recipes.planning import plan as work_out
    from ..recipes.recipe import load_any_recipe
    from ..recipes.works import work_of

    checked = load_any_recipe(values_of(recipe, data, stream), list(overrides or []))
    found = work_out(work_of(checked, DataProgress()), gpus, device, price, seconds)
    typer.echo(json.dumps(found.describe(), indent=2) if as_json else "\n".join(_lines(found)))


def _lines(plan: Plan) -> list[str]:
    devices = "device like this one" if plan.device == "this" else plan.device
    where = "measured here" if plan.device == "this" else "as measured here, half at most"
    rows = [
        ("network", f"{plan.parameters:,} parameters, {_short(plan.forward_operations)}FLOP for a sample's forward pass"),
        ("run", f"{plan.samples:,} samples, {plan.batch_per_device:,.4g} a step on each of {plan.devices} x {devices}"),
        ("speed", f"{plan.samples_per_second:,.4g} samples/s, at {plan.share_of_peak:.0%} of the peak ({where})"),
        ("time", _time(plan.hours) + ("" if plan.price is None else f", {plan.price:,.2f} at the price given")),
        ("storage", f"{_bytes(plan.checkpoint_bytes)} a checkpoint, {_bytes(plan.model_bytes)} the model, "
                    f"{_bytes(plan.storage_bytes)} at any time, beside the data"),
        ("reading", f"{_bytes(plan.data_bytes_per_second)}/s of decoded data"),
    ]  # fmt: skip
    if plan.devices > 1:
        sent = ", ".join(f"{_bytes(rate)}/s with {way}" for way, rate in plan.network_bytes_per_second.items())
        rows.append(("network", f"each device sends {sent}"))
    lines = [f"{name:<9} {text}" for name, text in rows]
    lines += [
        "",
        f"{'memory of a device':<30}{'state':>12}{'activations':>14}{'together':>12}{'most samples at once':>24}",
    ]
    for way in plan.memory:
        fits = "unknown" if way.fits is None else f"{way.fits:,}" if way.fits else "does not fit"
        lines.append(
            f"{way.way:<30}{_bytes(way.state):>12}{_bytes(way.activations):>14}{_bytes(way.total):>12}{fits:>24}"
        )
    return lines


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} E"


def _bytes(number: float) -> str:
    return _short(number) + "B"


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.3g} seconds"
    if hours < 1:
        return f"{hours * 60:.3g} minutes"
    return f"{hours:.3g} hours" if hours < 48 else f"{hours / 24:.3g} days"
