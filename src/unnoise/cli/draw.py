"""`unnoise draw`: pictures of processes, models and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import DataProgress, WritesAtTheEnd, bar, say
from .sample import EMBEDDED

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..data.base import Dataset
    from ..model import Model

draw_app = typer.Typer(
    cls=WritesAtTheEnd,
    no_args_is_help=True,
    help="Draws processes, models and runs.",
    rich_markup_mode="markdown",
)

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ANIMATIONS = (".gif", ".webp", ".apng", ".png")

Data = Annotated[str, typer.Argument(help="A shipped data set's name, a folder of images, Parquet, NPY/NPZ or CSV.")]
ModelPath = Annotated[Path, typer.Argument(help="A model folder, or the run folder around it.")]
Number = Annotated[int | None, typer.Option("-n", "--number", help="How many samples are drawn.")]
Seed = Annotated[int, typer.Option(help="Of the noise.")]


def _out(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option("-o", "--out", help=what)
    return option


Out = Annotated[Path, _out("The picture: .png, .jpg or .webp.")]


def _load(path: str) -> Dataset:
    from ..data.base import datasets
    from ..data.open import source_of

    source = datasets.build(path) if path in datasets and not Path(path).exists() else source_of(path)
    data = source.load(DataProgress())
    data.check()
    return data.part()


def _of_run(model: Model, path: str | None) -> Dataset | None:
    """The data at a path, else what a model of points in the plane was trained on; None where that is not known any more."""
    from ..errors import DataError
    from ..recipes.run_data import run_data

    if path is not None:
        return _load(path)
    if model.spec.kind != "points" or tuple(model.spec.shape) != (2,):
        return None  # refused where it is drawn
    try:
        found = run_data(model, DataProgress())
    except DataError as error:
        say(f"note: drawn without the data of the run: {error}")
        return None
    if found is None or found.changed:
        say("note: drawn without data, as what the model was trained on is not known: give it with --data")
        return None
    return found.train


def _check(out: Path, suffixes: tuple[str, ...]) -> None:
    from ..errors import BadOption

    if out.suffix.lower() not in suffixes:
        raise BadOption(f"cannot write {out.name}: the name must end in {', '.join(suffixes)}")


def _save(picture: Image, out: Path) -> None:
    import io

    from PIL import Image as images

    from ..pictures.saving import replace

    stream = io.BytesIO()
    picture.save(stream, images.registered_extensions()[out.suffix.lower()], quality=95)
    typer.echo(replace(out, stream.getvalue()))


@draw_app.command("forward")
def forward(
    data: Data,
    out: Out = Path("forward.png"),
    schedule: Annotated[str, typer.Option(help="See `unnoise list schedules`.")] = "linear",
    times: Annotated[str | None, typer.Option(help="Numbers from 0 (data) to 1 (noise), such as `0,0.1,0.5`.")] = None,
    n: Number = None,
    seed: Seed = 0,
) -> None:
    """Data dissolving into noise, with alpha-bar and the signal-to-noise ratio under each frame.

    - `unnoise draw forward spiral -o strip.png --schedule cosine`

    - `unnoise draw forward ~/Pictures/cats -n 4 --times 0,0.1,0.3 -o cats.png`
    """
    from ..process.base import schedules
    from ..recipes.gallery import TIMES, forward_strip

    _check(out, PICTURES)
    at = TIMES if times is None else _numbers("times", times)
    part = schedules.build(schedule)
    _save(forward_strip(_load(data), None, part, at, n=n, seed=seed), out)


@draw_app.command("schedules")
def schedules_command(
    data: Annotated[str, typer.Argument(help="As in `unnoise draw forward`.")] = "spiral",
    out: Out = Path("schedules.png"),
    schedule: Annotated[list[str] | None, typer.Option(help="Once for each; linear and cosine by default.")] = None,
    times: Annotated[str | None, typer.Option(help="Numbers from 0 (data) to 1 (noise), such as `0,0.1,0.5`.")] = None,
    n: Number = None,
    seed: Seed = 0,
) -> None:
    """The same data and noise under several schedules, one strip beneath another.

    - `unnoise draw schedules -o schedules.png`

    - `unnoise draw schedules digits --schedule linear --schedule cosine --schedule flow -o three.png`
    """
    from ..process.base import schedules
    from ..recipes.gallery import TIMES, schedules_side_by_side

    _check(out, PICTURES)
    at = TIMES if times is None else _numbers("times", times)
    chosen = {name: schedules.build(name) for name in schedule or ["linear", "cosine"]}
    _save(schedules_side_by_side(_load(data), None, chosen, at, n=n, seed=seed), out)


@draw_app.command("score")
def score(
    model: ModelPath,
    out: Out = Path("score.png"),
    data: Annotated[
        str | None, typer.Option(help="What it was trained on, for the exact score below; by default the run's own.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Numbers above 0 (data) up to 1 (noise), such as `0.2,0.5`.")
    ] = None,
) -> None:
    """The score that a model of points in the plane has learned, as arrows, above the exact one of its data.

    - `unnoise draw score runs/spiral -o score.png`

    - `unnoise draw score runs/spiral --times 0.2,0.5 -o score.png`
    """
    from ..model import Model
    from ..recipes.score_field import score_field

    _check(out, PICTURES)
    at = None if times is None else _numbers("times", times)
    loaded = Model.load(model)
    _save(score_field(loaded, at, _of_run(loaded, data)), out)


@draw_app.command("paths")
def paths(
    model: ModelPath,
    out: Out = Path("paths.png"),
    data: Annotated[
        str | None, typer.Option(help="What it was trained on, drawn faintly; by default the run's own.")
    ] = None,
    n: Number = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; 300 by default.")] = None,
    seed: Seed = 0,
) -> None:
    """The ways of samples from the same starts: along the probability flow, and with the reverse SDE.

    - `unnoise draw paths runs/spiral -o paths.png`
    """
    from ..model import Model
    from ..recipes.paths import MEMBERS, STEPS, flow_and_sde

    _check(out, PICTURES)
    loaded = Model.load(model)
    _save(flow_and_sde(loaded, _of_run(loaded, data), MEMBERS if n is None else n, steps or STEPS, seed), out)


@draw_app.command("loss")
def loss(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Out = Path("loss.png"),
    by_time: Annotated[
        bool, typer.Option("--by-time", help="The validation loss at each stretch of time instead.")
    ] = False,
) -> None:
    """The loss of a run, with the Bayes floor that no network can go below.

    - `unnoise draw loss runs/digits -o loss.png`

    - `unnoise draw loss runs/digits --by-time -o by-time.png`
    """
    from ..recipes.gallery import loss_by_time_picture, run_loss_picture

    _check(out, PICTURES)
    _save(loss_by_time_picture(run) if by_time else run_loss_picture(run), out)


@draw_app.command("rate")
def rate(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`unnoise list recipes`) or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Options, such as `training.warmup=500`.")] = None,
    law: Annotated[
        list[str] | None, typer.Option(help="Once for each, see `unnoise list rates`; the recipe's own by default.")
    ] = None,
    out: Out = Path("rate.png"),
) -> None:
    """The learning rate of a recipe over its run.

    - `unnoise draw rate digits -o rate.png`

    - `unnoise draw rate digits training.warmup=50 --law cosine --law trapezoid --law inverse_sqrt -o rates.png`
    """
    from ..recipes.gallery import learning_rate_picture
    from ..recipes.recipe import load_recipe

    _check(out, PICTURES)
    asked = [{}] if law is None else [{"training__decay": each} for each in law]
    _save(learning_rate_picture([load_recipe(recipe, overrides or [], **each).training for each in asked]), out)


@draw_app.command("reverse")
def reverse(
    model: ModelPath,
    out: Annotated[Path, _out("The animation: .gif, .webp or .apng.")] = Path("reverse.gif"),
    label: Annotated[
        str | None, typer.Option(help="A class by name or number; `all` goes through them in turn.")
    ] = None,
    n: Number = None,
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; the model's own by default.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale: 1 is off, 0 unconditional.")] = None,
    embedded_guidance: Annotated[float | None, typer.Option(help=EMBEDDED)] = None,
    data: Annotated[str | None, typer.Option(help="Data that is drawn faintly behind points.")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 8.0,
    seed: Seed = 0,
) -> None:
    """Sampling in motion: x on its way beside the model's estimate of the clean data.

    - `unnoise draw reverse runs/digits -o x.gif --label 3 -n 16 --steps 20`

    - `unnoise draw reverse runs/spiral --data spiral -o spiral.webp`
    """
    from ..model import Model
    from ..pictures.animation import save_animation
    from ..recipes.gallery import reverse_animation

    _check(out, ANIMATIONS)
    loaded = Model.load(model)
    names = loaded.spec.class_names
    count = (500 if loaded.spec.kind == "points" else 16) if n is None else n
    asked = [names[i % len(names)] for i in range(count)] if label == "all" and names else label
    behind = None if data is None else _load(data)
    with bar() as progress:
        progress.add_task("sampling", total=None, facts="")
        frames = reverse_animation(
            loaded, count, data=behind, label=asked, steps=steps, guidance=guidance, embedded_guidance=embedded_guidance,
            seed=seed,
        )  # fmt: skip
    save_animation(frames, out, fps=fps, hold_last=2.0)
    typer.echo(out)


@draw_app.command("attention")
def attention(
    model: ModelPath,
    prompt: Annotated[str, typer.Option(help="What is asked for, in words.")],
    steps: Annotated[int | None, typer.Option(help="Steps from noise to data; the model's own by default.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale: 1 is off, 0 unconditional.")] = None,
    embedded_guidance: Annotated[float | None, typer.Option(help=EMBEDDED)] = None,
    seed: Seed = 0,
    out: Out = Path("attention.png"),
) -> None:
    """What each word of a prompt did: the places of a sample that read it while it was made.

    - `unnoise draw attention runs/shapes --prompt "a red circle left of a blue square" -o attention.png`
    """
    from ..model import Model
    from ..recipes.attention import attention_picture

    _check(out, PICTURES)
    asked = {"steps": steps, "guidance": guidance, "embedded_guidance": embedded_guidance}
    given = {name: value for name, value in asked.items() if value is not None}
    _save(attention_picture(Model.load(model), prompt, seed=seed, **given), out)


def _numbers(name: str, text: str) -> list[float]:
    from ..errors import BadOption

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise BadOption(f"{name}: expected numbers with commas between, such as 0,0.1,0.5, got {text!r}") from None
