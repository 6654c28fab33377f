"""`unnoise info`, `unnoise data` and `unnoise list`: look before you act."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .progress import DataProgress


def _rows(values: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in values)
    for name, value in values:
        typer.echo(f"{name:<{width}}  {value}")


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def info(
    path: Annotated[Path, typer.Argument(help="A model folder, a run folder, or a file of samples.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tells what a model is, how a run went, or how a file was made.

    - `unnoise info runs/digits`

    - `unnoise info threes.png`
    """
    from ..model import Model
    from ..samples import read_recipe

    if path.is_file():
        recipe = read_recipe(path)
        typer.echo(json.dumps(recipe if as_json else _brief(recipe), indent=2))
        return
    if _is_autoencoder(path):
        _tell_autoencoder(path, as_json)
        return
    model = Model.load(path)
    described = model.blueprint.describe()
    if as_json:
        facts = {
            **described,
            "parameters": model.parameters(),
            "hash": model.hash,
            "trained": model.trained,
            "notes": model.notes,
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    spec = model.spec
    sampling = model.sampling
    rows: list[tuple[str, Any]] = [
        ("model", f"{path}  (hash {model.hash[:12]})"),
        ("makes", f"{spec.kind} of shape {spec.shape}"),
        ("labels", ", ".join(spec.class_names) or "none"),
        ("network", f"{_flat(described['network'])}: {model.parameters():,} parameters"),
        ("predicts", f"{described['denoiser']['name']}, sigma_data {described['denoiser']['sigma_data']:g}"),
        ("process", _flat(described["process"])),
        (
            "sampling",
            f"{sampling.sampler.registered_name}, {sampling.steps} steps, {sampling.grid} grid, guidance {sampling.guidance:g}",
        ),
        *((f"trained: {key}", value) for key, value in model.trained.items() if value != ""),
        *(("note", note) for note in model.notes),
    ]
    _rows(rows)


def _brief(told: Any) -> Any:
    """A recipe as people read it, where pictures that stand in it would fill the screen."""
    if isinstance(told, Mapping):
        return {name: _brief(each) for name, each in told.items()}
    if isinstance(told, list):
        return [_brief(each) for each in told]
    if isinstance(told, str) and told.startswith("data:"):
        return f"{told.partition(',')[0]}, and {len(told)} characters of it"
    return told


def _is_autoencoder(path: Path) -> bool:
    from ..errors import ModelFolderError
    from ..model_folder import model_place, read_description
    from ..recipes.codec_folder import KIND

    try:
        return read_description(model_place(path)).get("kind") == KIND
    except ModelFolderError:  # which loading it as a model tells, or mends
        return False


def _tell_autoencoder(path: Path, as_json: bool) -> None:
    from ..recipes.codec_folder import read_codec

    codec, values = read_codec(path)
    parameters = sum(p.numel() for p in codec.autoencoder.parameters())
    if as_json:
        facts = {key: values[key] for key in ("kind", "data", "codec", "trained")}
        typer.echo(json.dumps({**facts, "parameters": parameters, "hash": codec.hash}, indent=2))
        return
    shape = tuple(values["data"]["shape"])
    _rows(
        [
            ("codec", f"{path}  (hash {codec.hash[:12]})"),
            ("encodes", f"{values['data']['kind']} of shape {shape} as latents of shape {codec.shape(shape)}"),
            ("network", f"autoencoder, {_flat(values['codec']['network'])}: {parameters:,} parameters"),
            *((f"trained: {key}", value) for key, value in values["trained"].items() if value != ""),
        ]
    )


def data(
    path: Annotated[
        str,
        typer.Argument(help="A folder of images, Parquet, shards, a URL, NPY/NPZ, CSV, or a shipped data set's name."),
    ],
    stream: Annotated[
        bool, typer.Option("--stream", help="Look at some samples only, for data that does not fit into memory.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Looks at data before training: counts, shapes, ranges, labels, duplicates, unreadable files.

    - `unnoise data ~/Pictures/cats`

    - `unnoise data digits`
    """
    from ..data.base import datasets
    from ..data.inspect import inspect_data
    from ..data.open import source_of
    from ..data.sizes import told_sizes

    source = datasets.build(path) if path in datasets and not Path(path).exists() else source_of(path, stream)
    found = source.load(DataProgress())
    report = inspect_data(found)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    span = (
        "no finite values"
        if report.low is None
        else f"{report.low:g} to {report.high:g}, mean {report.mean:.4g}, std {report.std:.4g}"
    )
    labels = ", ".join(f"{name} ({count:,})" for name, count in list(report.labels.items())[:20])
    more = f" and {len(report.labels) - 20} more" if len(report.labels) > 20 else ""
    part = [] if report.looked_at == report.count else [("looked at", f"{report.looked_at:,} of them, from all over")]
    rows: list[tuple[str, Any]] = [
        (
            "samples",
            f"{report.count:,} {report.kind}, shape {report.shape} ({report.values_per_sample:,} values), {report.dtype}",
        ),
        *([("sizes", sizes)] if (sizes := told_sizes(source, found)) else []),
        ("where", found.layout()),
        *part,
        ("values", span + (f", {report.not_finite:,} not finite" if report.not_finite else "")),
        ("labels", (labels or "none") + more),
        ("captions", f"{report.captions:,}" if report.captions else "none"),
        (
            "duplicates",
            f"{report.duplicates:,}"
            + (f", such as {report.duplicate_examples[0]}" if report.duplicate_examples else ""),
        ),
        ("unreadable", f"{len(report.skipped):,}"),
        *(("", line) for line in report.skipped[:20]),
        *(("warning", line) for line in report.warnings),
    ]
    _rows(rows)


def list_parts(
    kind: Annotated[str | None, typer.Argument(help="recipes, samplers, schedules, predictions, networks, ...")] = None,
    options: Annotated[bool, typer.Option("--options", help="Show the options of each too.")] = False,
) -> None:
    """Lists what there is, with one line about each.

    - `unnoise list samplers`

    - `unnoise list schedules --options`
    """
    from ..errors import UnknownName
    from ..recipes.catalogue import catalogue

    kinds = catalogue()
    if kind is None:
        for name, parts in kinds.items():
            typer.echo(f"{name:<16}{', '.join(part.name for part in parts)}")
        return
    if kind not in kinds:
        raise UnknownName("list", kind, kinds)
    width = max(len(part.name) for part in kinds[kind]) + 2
    for part in kinds[kind]:
        typer.echo(f"{part.name:<{width}}{part.summary}")
        for name, text in part.options.items() if options else ():
            typer.echo(f"{'':<{width}}  {name:<20}{text}")
