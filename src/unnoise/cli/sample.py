"""`unnoise sample` and `unnoise replay`: from a model to files, and from a file to the same file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .places import ADDRESS, DEVICE, ON, PRECISION, WORKERS, place_spec
from .progress import StopSignals, bar, nothing_written, say

MODEL = "A model folder, or the run folder around it; `ready` and `ready-emoji` come with unnoise."
GUIDANCE = "The scale: 1 is off, 0 unconditional; or a rule and its scale, `apg:4` (`unnoise list guidance`)."
EMBEDDED = "The scale told to a model into which guidance was distilled, such as FLUX.1 dev; 1 by default."
PROMPT = "Words, of models that learned some; `(red:1.3)` counts more."
SAMPLER = "See `unnoise list samplers`; the model's own by default."
GRID = "At which times: see `unnoise list grids`; or the times themselves: `1,0.5,0`."
LORA = "What a run with --lora learned: PATH or PATH:STRENGTH; may be repeated."
BLEND = "Other noise mixed in, SEED:SHARE such as `7:0.2`, to vary what a seed makes."
BOXES = "What stands where, of models that learned boxes: `cat 0.1 0.2 0.5 0.6; dog ...`."
MAP = "A label map, of models that learned such: a PNG whose pixels are class numbers."
IMAGE = "A picture that samples begin from instead of noise; of points and arrays a .npy or .npz."
OVERRIDES = "Options of the parts, such as `sampler.eta=0.5`."
NEGATIVE = "Words to push away from, with --guidance."
OUT = "A picture, animation (.gif), data file (.npz .csv) or folder."
IN_TURN = "Given several times, samples take them in turn."
STRENGTH = "How much of --image is made anew: 0 nothing, 1 all of it; 0.6 by default."


def _options(overrides: list[str] | None, sampler: str | None, guidance: str | None, settings: Any) -> tuple[Any, Any]:
    """The sampler and guidance specs with options such as sampler.eta=0.5 set."""
    from ..errors import BadOption
    from ..recipes.recipe import override, parse_override
    from ..samplers.base import samplers

    default = samplers.describe(settings.sampler) if sampler is None else {"name": sampler}
    scale = settings.guidance if guidance is None else guidance
    values: dict[str, Any] = {"sampler": default, "guidance": guidance_spec(scale)}
    for text in overrides or []:
        path, value = parse_override(text)
        if path[0] not in values or len(path) < 2:
            raise BadOption(f"{text}: expected sampler.OPTION=value or guidance.OPTION=value")
        override(values, path, value)
    return values["sampler"], values["guidance"]


def guidance_spec(text: str | float) -> dict[str, Any]:
    """A guidance rule from `2`, `apg` or `apg:2`.

    Raises:
        BadOption: It is none of these.
    """
    from ..errors import BadOption, nearest
    from ..guidance.base import guidances

    name, colon, number = str(text).rpartition(":")
    if not colon and text in guidances:
        return {"name": text}
    try:
        return {"name": name or "classifier_free", "scale": float(number)}
    except ValueError:
        known = nearest(name or number, guidances)
        raise BadOption(f"--guidance {text}: expected a scale, a rule, or both such as apg:4{known}") from None


def _blend(text: str | None) -> dict[str, Any] | None:
    """What noise is mixed with, from `7` or `7:0.2`."""
    if text is None:
        return None
    seed, _, share = text.partition(":")
    return {"seed": seed, **({"share": share} if share else {})}


def _notes(rule: dict[str, Any], typed: str | None, asked: Any, negative: list[str] | None) -> Iterator[str]:
    """What a person should know of the guidance that was typed."""
    from ..guidance.base import guidances

    alone = rule["name"] == "autoguidance"
    if typed is not None and asked is None and not alone:
        yield "guidance does nothing where nothing is asked for, with --label, --prompt, --boxes or --map"
    if negative and rule.get("scale") == 1 and rule["name"] == "classifier_free":
        yield "--negative-prompt does nothing at guidance 1: raise --guidance"
    if typed in guidances and "scale" not in rule:
        scale = guidances.build(rule, "guidance").scale
        yield f"--guidance {typed} alone has scale {scale:g}; {typed}:{2 * scale:g} is twice that"


def _in_turn(names: Sequence[str], n: int, first: int, **asked: list[str] | None) -> dict[str, Any]:
    """What was asked for, by its name: one for all samples, or several that they take in turn, as they do the label `all`."""
    if asked.get("label") == ["all"] and names:
        asked["label"] = list(names)
    found: dict[str, Any] = {}
    for name, each in asked.items():
        some: list[Any] = each or [None]
        found[name] = some[0] if len(some) == 1 else [some[(first + i) % len(some)] for i in range(n)]
    return found


def _model_left_out(model: str, overrides: list[str] | None, prompts: list[str] | None) -> tuple[str, list[str] | None]:
    """The model and the options where none or only options were typed, such as `unnoise sample sampler.eta=1`."""
    from ..shipped import ready_for

    if "=" in model and not Path(model).exists():
        model, overrides = "", [model, *(overrides or [])]
    if not model:
        model = ready_for(" ".join(prompts or []))
        why = "; what no caption had together it guesses at" if prompts else ""
        say(f"note: no model was given: {model} is taken{why}")
    return model, overrides


def sample(
    model: Annotated[str, typer.Argument(help=MODEL, show_default="what comes with unnoise and knows the prompt")] = "",
    overrides: Annotated[list[str] | None, typer.Argument(help=OVERRIDES)] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="How many.")] = 16,
    label: Annotated[list[str] | None, typer.Option(help=f"A class by name or number, or `all`. {IN_TURN}")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help=f"{PROMPT} {IN_TURN}")] = None,
    negative_prompt: Annotated[list[str] | None, typer.Option(help=f"{NEGATIVE} {IN_TURN}")] = None,
    boxes: Annotated[str | None, typer.Option(help=BOXES)] = None,
    map: Annotated[Path | None, typer.Option(help=MAP)] = None,
    sampler: Annotated[str | None, typer.Option(help=SAMPLER)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; the model's own by default.")] = None,
    grid: Annotated[str | None, typer.Option(help=GRID)] = None,
    guidance: Annotated[str | None, typer.Option(help=GUIDANCE)] = None,
    embedded_guidance: Annotated[float | None, typer.Option(help=EMBEDDED)] = None,
    lora: Annotated[list[str] | None, typer.Option(help=LORA)] = None,
    seed: Annotated[int, typer.Option(help="Sample k of a seed is the same in any batch.")] = 0,
    first: Annotated[int, typer.Option(help="Index of the first sample.")] = 0,
    blend: Annotated[str | None, typer.Option(help=BLEND)] = None,
    image: Annotated[Path | None, typer.Option(help=IMAGE)] = None,
    strength: Annotated[float | None, typer.Option(help=STRENGTH)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at a time; chosen by their size by default.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
    on: Annotated[str, typer.Option(help=ON)] = "here",
    workers: Annotated[int | None, typer.Option(help=WORKERS)] = None,
    address: Annotated[str | None, typer.Option(help=ADDRESS)] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help=OUT)] = Path("samples.png"),
) -> None:
    """Makes samples. Every file carries the recipe that it was made by; `unnoise replay FILE` makes it again.

    - `unnoise sample --prompt "a red heart" -o heart.png`

    - `unnoise sample --prompt "a red heart" --prompt "a blue heart" -n 8 -o hearts.png`

    - `unnoise sample runs/digits -n 16 --label 3 --guidance 2 -o threes.png`

    - `unnoise sample runs/digits -n 100 --label all --sampler ddim --steps 50 sampler.eta=1 -o digits/`

    - `unnoise sample ready --prompt "a large red circle" --negative-prompt small --guidance 3 -o circles.png`

    - `unnoise sample runs/scenes --boxes "circle 0.1 0.1 0.5 0.5; star 0.6 0.6 0.9 0.9" --guidance 3 -o scene.png`

    - `unnoise sample runs/digits --label 3 --guidance autoguidance:2 guidance.weak=runs/small -o better.png`

    - `unnoise sample runs/digits --image five.png --strength 0.6 --label 3 -o three-like-a-five.png`

    - `unnoise sample runs/spiral -n 500 -o spiral.gif`

    - `unnoise sample runs/animals --lora runs/cats:0.8 -o cats.png`

    - `unnoise sample runs/animals -n 10000 --on ray -o animals/`

    What stands in a folder already is not made again: after Ctrl-C, the same command goes on.
    """
    from ..errors import BadOption
    from ..samples import check_target

    model, overrides = _model_left_out(model, overrides, prompt)
    check_target(out)
    is_folder = not out.suffix or out.is_dir()
    place = place_spec(on, workers, address, device)
    if place["name"] != "here" and not is_folder:
        raise BadOption(f"--on {on} fills a folder, one file a sample: give one with -o, not {out}")
    loaded = _load(model, lora, device, precision)
    check_target(out, loaded.spec)
    stepper, rule = _options(overrides, sampler, guidance, loaded.sampling)
    for note in _notes(rule, guidance, label or prompt or negative_prompt or boxes or map, negative_prompt):
        say(f"note: {note}")
    options: dict[str, Any] = {
        **_in_turn(loaded.spec.class_names, n, first, label=label, prompt=prompt, negative_prompt=negative_prompt),
        "boxes": boxes, "map": map, "seed": seed, "sampler": stepper, "steps": steps, "grid": grid, "guidance": rule,
        "embedded_guidance": embedded_guidance, "first": first, "blend": _blend(blend), "image": image,
        "strength": strength, "batch_size": batch_size,
    }  # fmt: skip
    if is_folder:
        _fill(out, loaded, n, place, options)
        return
    _into_one(out, loaded, n, options)


def _into_one(out: Path, model: Any, n: int, options: dict[str, Any]) -> None:
    """Samples into one file, with a bar."""
    with nothing_written(), bar() as progress:
        task = progress.add_task("sampling", total=None, facts="")
        made = model.sample(
            n, **options, keep_frames=out.suffix.lower() in (".gif", ".apng"),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    for note in made.notes:
        say(f"note: {note}")
    _report(made.save(out))


def _load(path: str, loras: list[str] | None, device: str, precision: str) -> Any:
    """The model, with its adapters, where it samples; what is odd about it is told."""
    from ..adapter import adapter_spec
    from ..model import Model
    from ..precision import settle_in

    model = Model.load(path)
    for text in loras or []:
        model = model.with_lora(*adapter_spec(text))
    settle_in()
    model = model.on(device, precision)  # type: ignore[arg-type]
    for note in model.notes:
        say(f"note: {note}")
    return model


def _fill(folder: Path, model: Any, n: int, place: dict[str, Any], options: dict[str, Any]) -> None:
    """Samples into a folder, with a bar and a clean stop."""
    from ..recipes.bulk import sample_into

    with StopSignals() as stop, bar() as progress:
        task = progress.add_task("sampling", total=n, facts="")
        filled = sample_into(
            folder, model, n, **options, place=place, stop=stop,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    for note in filled.notes:
        say(f"note: {note}")
    there = f", {filled.found} of them from before" if filled.found else ""
    typer.echo(f"{filled.made + filled.found} files in {folder}{there}")
    if not filled.whole:
        say("stopped: what is done stays; the same command goes on from there")
        sys.exit(128 + (stop.received or 0))


def replay(
    file: Annotated[Path, typer.Argument(help="A file that `unnoise sample` wrote.")],
    model: Annotated[Path | None, typer.Option(help="Where the model stands now; as the file says by default.")] = None,
    guide: Annotated[
        Path | None, typer.Option(help="Where the weaker model or classifier that guided it stands.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where to write; FILE with `-replay` by default.")
    ] = None,
) -> None:
    """Makes the same file again, byte for byte on the same build, from the recipe that it carries.

    - `unnoise replay threes.png`

    - `unnoise replay threes.png --model runs/digits -o again.png`
    """
    from ..errors import ModelFolderError
    from ..model import Model
    from ..samples import read_recipe
    from ..shipped import folder_of

    recipe = read_recipe(file)
    place = model if model is not None else recipe["model"]["path"]
    if place is None:
        raise ModelFolderError("the file does not say where its model stands: give it with --model")
    if model is None and not folder_of(place).exists():
        raise ModelFolderError(
            f"there is no model at {place}, where the file says that its own stood: give it with --model"
        )
    loaded = Model.load(place)
    for each in recipe["model"].get("loras", ()):
        loaded = loaded.with_lora(each["path"], each["strength"])
    for note in loaded.notes:
        say(f"note: {note}")
    target = out if out is not None else file.with_name(f"{file.stem}-replay{file.suffix}")
    if target.suffix.lower() != file.suffix.lower():
        raise ModelFolderError(f"the same file has the same suffix: write to {target.with_suffix(file.suffix)}")
    with nothing_written():
        made = loaded.replay(recipe, None if guide is None else str(guide))
    _report(made.save(target))


def _report(written: list[Path]) -> None:
    if len(written) == 1:
        typer.echo(written[0])
    else:
        typer.echo(f"{len(written)} files in {written[0].parent}")
