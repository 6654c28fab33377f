"""Pictures of processes, models and runs: data that dissolves, scores, sampling in motion, losses."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..codecs.base import Codec
from ..codecs.identity import IdentityCodec
from ..data.base import Dataset, Spec
from ..errors import BadOption, DataError, RunFolderError
from ..model import Model
from ..pictures import style
from ..pictures.arrays import floats
from ..pictures.curves import lines, loss_by_time, loss_curve
from ..pictures.grid import image_grid
from ..pictures.points import scatter
from ..pictures.saving import replace
from ..pictures.strip import stack, strip
from ..process.base import Schedule, log_snr_at, scales
from ..process.forward import add_noise
from ..randomness import NoiseSource
from ..training.settings import TrainingSettings
from .metrics import read_metrics

TIMES = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
MOST_POINTS = 2000

Limits = tuple[float, float, float, float]  # left, right, bottom, top


def codec_for(dataset: Dataset) -> Codec:
    """The way into the space of the model that recipes choose when nothing is said."""
    return IdentityCodec.pixels() if dataset.spec.kind == "image" else IdentityCodec.standardizing(dataset.x)


def forward_strip(
    dataset: Dataset,
    codec: Codec | None,
    schedule: Schedule,
    times: Sequence[float] = TIMES,
    *,
    levels: Sequence[int] | None = None,
    n: int | None = None,
    seed: int = 0,
    size: int = 200,
) -> Image.Image:
    """Data that dissolves into noise: every frame adds the same noise, only more of it.

    Where a schedule lets x grow, what is drawn is x over sqrt(alpha^2 + sigma^2).

    Args:
        dataset: Points are drawn in one plot, images as a small grid.
        codec: Into the space where the noise is added; None chooses as recipes do.
        schedule: Alpha and sigma.
        times: One frame for each, in [0, 1].
        levels: Instead of times, levels of a discrete schedule, from -1 (clean data) on.
        n: How many samples are drawn; by default 9 images, or 2,000 points at most.
        seed: Of the noise.
        size: Width of a frame, in pixels, as near as images allow.

    Raises:
        BadOption: There are no times, one lies outside, or the schedule has no such level.
        DataError: The data has no picture.
    """
    codec = codec_for(dataset) if codec is None else codec
    times = _times(schedule, times, levels)
    shown = choose(dataset, n)
    x_0 = codec.encode(dataset.x[shown])
    eps = NoiseSource(seed, shown.tolist()).start(x_0.shape[1:], x_0.dtype)
    limits = limits_of(dataset.spec, dataset.x)
    frames = []
    for t in times:
        x_t = add_noise(x_0, eps, schedule, torch.tensor(t, dtype=torch.float64))
        frames.append(_frame(dataset.spec, codec.decode(x_t / _growth(schedule, t)), size, limits))
    return strip(frames, [caption(schedule, t) for t in times])


def schedules_side_by_side(
    dataset: Dataset,
    codec: Codec | None,
    schedules: Mapping[str, Schedule],
    times: Sequence[float] = TIMES,
    **options: Any,
) -> Image.Image:
    """The strips of several schedules under each other, with the same samples, noise and times.

    Args:
        dataset: As in `forward_strip`.
        codec: As in `forward_strip`.
        schedules: By the name that stands above the strip.
        times: As in `forward_strip`.
        options: The other options of `forward_strip`.

    Raises:
        BadOption: There are no schedules, or as in `forward_strip`.
    """
    rows = [forward_strip(dataset, codec, each, times, **options) for each in schedules.values()]
    return stack(rows, list(schedules))


def _times(schedule: Schedule, times: Sequence[float], levels: Sequence[int] | None) -> list[float]:
    if levels is not None:
        num = schedule.num_steps
        if not num:
            raise BadOption(f"levels: {type(schedule).__name__} has none, give times")
        if not all(-1 <= level < num for level in levels):
            raise BadOption(f"levels: expected -1 (clean data) to {num - 1}, got {list(levels)}")
        times = [(level + 1) / num for level in levels]
    if not times or not all(0 <= t <= 1 for t in times):
        raise BadOption(f"times: expected at least one, all in [0, 1], got {list(times)}")
    return [float(t) for t in times]


def caption(schedule: Schedule, t: float) -> str:
    """What a time means, in lines: the level of a discrete schedule, alpha-bar or alpha and sigma, and their SNR."""
    alpha, sigma = scales(schedule, t)
    lines = [f"t = {t:g}"]
    if schedule.num_steps:
        lines.append("clean data" if t == 0 else f"level {t * schedule.num_steps - 1:.6g}")
        lines.append(f"ᾱ = {alpha**2:.4f}" if alpha**2 >= 1e-3 or alpha == 0 else f"ᾱ = {alpha**2:.1e}")
    else:
        lines.append(f"α = {alpha:.3g}, σ = {sigma:.3g}")
    snr = math.exp(log_snr_at(schedule, t)) if sigma else math.inf
    lines.append("SNR = ∞" if math.isinf(snr) else f"SNR = {snr:.3g}")
    return "\n".join(lines)


def _growth(schedule: Schedule, t: float) -> float:
    """How much larger than data x_t is drawn smaller: 1 wherever noise and signal keep their sum."""
    alpha, sigma = scales(schedule, t)
    return max(1.0, math.hypot(alpha, sigma))


def choose(dataset: Dataset, n: int | None) -> Tensor:
    """The indices of the samples that stand for the data: of labelled images, the classes in turn."""
    if n is not None and n < 1:
        raise BadOption(f"n: must be at least 1, got {n}")
    count = min(len(dataset), (9 if dataset.spec.kind == "image" else MOST_POINTS) if n is None else n)
    if dataset.spec.kind == "image" and dataset.labels is not None:
        turns = [(dataset.labels == label).nonzero()[:count, 0] for label in range(dataset.spec.num_classes)]
        order = [turn[i] for i in range(count) for turn in turns if i < len(turn)]
        return torch.stack(order[:count])
    return torch.linspace(0, len(dataset) - 1, count).round().long()


def limits_of(spec: Spec, x: Tensor) -> Limits | None:
    """A square window on points, wide enough for noise of their spread."""
    if spec.kind != "points":
        return None
    points = floats(x)[:, :2]
    centre, low, high = points.mean(0), points.min(0), points.max(0)
    half = max(float((high - low).max()) * 0.6, 2.8 * float(points.std(0).max())) or 1.0
    middle = (low + high) / 2 if points.shape[1] > 1 else centre.repeat(2)
    return float(middle[0] - half), float(middle[0] + half), float(middle[1] - half), float(middle[1] + half)


def _frame(spec: Spec, x: Tensor, size: int, limits: Limits | None, background: Tensor | None = None) -> Image.Image:
    """Samples in the units of the data as one picture about `size` pixels wide."""
    if spec.kind == "points":
        radius = max(1.1, size / 150 * min(1.0, (600 / max(len(x), 1)) ** 0.25))
        return scatter(x, size, limits, background=background, radius=radius)
    if spec.kind != "image":
        raise DataError(f"samples of shape {spec.shape} have no picture: draw images or points")
    columns = math.ceil(math.sqrt(len(x)))
    return image_grid(x, columns, max(1, round((size / columns - 4) / max(x.shape[-2:]))))


def reverse_animation(
    model: Model,
    n: int | None = None,
    *,
    data: Dataset | None = None,
    size: int = 300,
    **request: Any,
) -> list[Image.Image]:
    """Sampling in motion: x on its way beside the model's estimate of where it leads, one frame a step.

    Where a schedule lets x grow, what is drawn is x over sqrt(alpha^2 + sigma^2).

    Args:
        model: What is sampled.
        n: How many samples; by default 16 images or 500 points.
        data: Drawn faintly behind points.
        size: Width of each of the two pictures, in pixels.
        request: Arguments of `Model.previews`: label, sampler, steps, guidance, grid, seed, first.

    Raises:
        BadOption: As in `Model.previews`.
        DataError: What the model makes has no picture.
    """
    spec, codec, schedule = model.spec, model.blueprint.codec, model.denoiser.schedule
    count = (500 if spec.kind == "points" else 16) if n is None else n
    previews = list(model.previews(count, **request))
    limits = limits_of(spec, previews[-1].x if data is None else data.x)
    behind = data.x if data is not None and spec.kind == "points" else None
    frames = []
    for preview in previews:
        x = codec.decode(preview.z / _growth(schedule, preview.t))
        pair = [_frame(spec, each, size, limits, behind) for each in (x, preview.denoised)]
        frames.append(strip(pair, [f"x at t = {preview.t:.3f}", "estimated clean data"]))
    return _of_one_size(frames)


def _of_one_size(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames on paper as large as the largest: captions are not all as wide."""
    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    return [ImageOps.pad(frame, size, color=style.PAPER) if frame.size != size else frame for frame in frames]


def _lines(run_folder: str | Path) -> list[dict[str, Any]]:
    lines = read_metrics(Path(run_folder) / "metrics.jsonl")
    if not lines:
        raise RunFolderError(f"{run_folder} holds no metrics: give a run folder, as `unnoise train` makes")
    return lines


def run_loss_picture(run_folder: str | Path, title: str | None = None) -> Image.Image:
    """The loss of a run over its steps: as it came, smoothed, and validated, with the Bayes floor.

    Args:
        run_folder: As `unnoise train` makes it.
        title: A line above.

    Raises:
        RunFolderError: The folder holds no metrics.
        MissingExtra: Matplotlib is not installed.
    """
    lines = _lines(run_folder)
    trained = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    validated = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    floors = [line["bayes_floor"] for line in lines if line.get("bayes_floor") is not None]
    steps, losses = [step for step, _ in trained], [loss for _, loss in trained]
    return loss_curve(
        steps, losses, smoothed(losses), floor=floors[-1] if floors else None, title=title,
        validation=([step for step, _ in validated], [loss for _, loss in validated]) if validated else None,
    )  # fmt: skip


def smoothed(losses: Sequence[float]) -> list[float]:
    """An exponential mean over about a twentieth of the run, that does not lag at its start."""
    keep = 1 - 1 / max(len(losses) / 20, 1.0)
    mean, weight, out = 0.0, 0.0, []
    for loss in losses:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        out.append(mean / weight)
    return out


def loss_by_time_picture(run_folder: str | Path, title: str | None = None) -> Image.Image:
    """The validation loss of a run at each stretch of time, with the Bayes floor of each.

    Args:
        run_folder: As `unnoise train` makes it.
        title: A line above.

    Raises:
        RunFolderError: The folder holds no metrics, or the run was not validated yet.
        MissingExtra: Matplotlib is not installed.
    """
    tables = [line["by_time"] for line in _lines(run_folder) if line.get("by_time")]
    if not tables:
        raise RunFolderError(f"the run in {run_folder} was not validated yet: let it go on for a while")
    table = tables[-1]
    return loss_by_time(table["t"], table["loss"], table["floor"], title=title)


def run_numbers_picture(run_folder: str | Path, batch_size: int) -> Image.Image | None:
    """What a run was measured by on its way, over the samples that it had seen; None where it was measured less than twice.

    Args:
        run_folder: As `unnoise train` makes it.
        batch_size: Samples an update.

    Raises:
        RunFolderError: The folder holds no metrics.
        MissingExtra: Matplotlib is not installed.
    """
    from ..pictures.bands import bands

    measured = [line for line in _lines(run_folder) if "best" in line]
    if len(measured) < 2:
        return None
    names = [name for name in measured[0] if f"{name}_low" in measured[0]]
    panels = {
        name: [(line[name], line[f"{name}_low"], line[f"{name}_high"]) for line in measured if name in line]
        for name in names
    }
    return bands([line["step"] * batch_size for line in measured], panels, xlabel="samples seen")


def save_run_pictures(run_folder: Path, batch_size: int) -> None:
    """Writes the loss of a run into its folder, as "loss.png", and what it was measured by, as "evaluation.png".

    Args:
        run_folder: As `unnoise train` makes it.
        batch_size: Samples an update.

    Raises:
        RunFolderError: The folder holds no metrics.
        MissingExtra: Matplotlib is not installed.
    """
    run_loss_picture(run_folder).save(run_folder / "loss.png")
    numbers = run_numbers_picture(run_folder, batch_size)
    if numbers is not None:
        numbers.save(run_folder / "evaluation.png")


def learning_rate_picture(settings: Sequence[TrainingSettings]) -> Image.Image:
    """The learning rate of runs at each of their updates, each by the name of its law.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    curves = {}
    for each in settings:
        # The first updates one by one, in which it rises, then some of the others.
        steps = sorted(
            {*range(min(each.steps, 200)), *range(0, each.steps, max(each.steps // 1000, 1)), each.steps - 1}
        )
        name = each.decay.registered_name  # type: ignore[attr-defined]
        curves[name] = floats(steps), floats([each.learning_rate(step) for step in steps])
    return lines(curves, xlabel="update", ylabel="learning rate")


def draw_run_samples(model: Model, path: str | Path, prompts: Sequence[str] = ()) -> None:
    """Writes what a model makes in the middle of its training, of the same noise every time.

    Labelled images have a row for each of the first ten labels; other images stand in a square, points in a plot. What
    has no picture is passed over.

    Args:
        model: As it stands.
        path: A .png file, replaced whole.
        prompts: What a model that understands words is asked for, a row for each.

    Raises:
        OSError: The file cannot be written.
    """
    spec = model.spec
    if spec.kind == "array":
        return
    steps = min(model.sampling.steps, 20)
    if spec.kind == "points":
        picture = model.sample(1000, steps=steps).picture()
    else:
        columns = 8 if max(spec.shape[-2:]) <= 32 else 4
        if model.blueprint.text is not None and prompts:
            asked = [prompt for prompt in prompts[:columns] for _ in range(columns)]
            made = model.sample(len(asked), prompt=asked, steps=steps).tensor
            replace(path, _png(labelled_rows(made, [_short(prompt) for prompt in prompts[:columns]])))
            return
        rows = min(spec.num_classes, 10) or columns
        labels = [row for row in range(rows) for _ in range(columns)] if spec.num_classes else None
        made = model.sample(rows * columns, label=labels, steps=steps).tensor
        names = spec.class_names[:rows]
        picture = labelled_rows(made, names) if names else image_grid(made, columns, _small(made))
    replace(path, _png(picture))


def labelled_rows(images: Tensor, names: Sequence[str]) -> Image.Image:
    """A grid with a row for each label, and the label on its left.

    Args:
        images: As many for each label, label by label, shape (N, C, H, W).
        names: Of the labels.
    """
    grid = image_grid(images, len(images) // len(names), _small(images))
    left = max(style.text_width(name, style.TITLE) for name in names) + 2 * style.GAP
    sheet = Image.new("RGB", (left + grid.width, grid.height), style.PAPER)
    sheet.paste(grid, (left, 0))
    for i, name in enumerate(names):
        style.write(sheet, (left / 2, (i + 0.5) * grid.height / len(names)), name, style.TITLE, anchor="mm")
    return sheet


def _small(images: Tensor) -> int:
    """The scale at which images are about 48 pixels large."""
    return max(1, round(48 / max(images.shape[-2:])))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _short(prompt: str, most: int = 32) -> str:
    return prompt if len(prompt) <= most else f"{prompt[: most - 3]}..."
