"""Makes the pictures of docs/choosing-a-sampler.md and docs/arc.md, and prints the numbers that the pages quote.

python docs/make_sampler_pictures.py [--digits runs/digits] [--only grids,arc]

The digits model is trained first where it is missing, which takes a minute or two.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from unnoise import load, train
from unnoise.data.base import datasets
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.guidance.base import Guided
from unnoise.guidance.classifier_free import ClassifierFreeGuidance
from unnoise.pictures import style
from unnoise.pictures.curves import lines
from unnoise.pictures.grid import image_grid
from unnoise.pictures.points import scatter
from unnoise.pictures.strip import stack, strip
from unnoise.process.base import scales, time_at
from unnoise.process.linear import LinearSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.adaptive import AdaptiveSampler
from unnoise.samplers.arc import ArcSampler
from unnoise.samplers.base import sample, samplers
from unnoise.samplers.brownian import BrownianNoise
from unnoise.samplers.coordinates import arc, data_line, flow_line, noise_line
from unnoise.samplers.dpmpp_2m import DPMSolverPPSampler
from unnoise.samplers.grids import GRIDS, make_grid
from unnoise.tuning.problem import Problem, converged, root_mean_square
from unnoise.tuning.search import grids_for, measure

PICTURES = Path(__file__).parent / "pictures"
SHOWN = ("ddim", "heun", "dpmpp_2m", "dpmpp_3m", "unipc", "deis", "arc")
ROUGH = {"name": "arc", "predictor": 3, "corrector": 4}
CALLS = (4, 6, 8, 12, 16, 24, 32)
CHANGED = (20, 22, 25, 30)


def eight_bumps() -> GaussianMixtureOracle:
    """Eight bumps of different size and weight on a ring: a perfect model of them."""
    angles = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    means = torch.stack([angles.cos(), angles.sin()], 1) * (0.8 + 0.4 * (torch.arange(8) % 3 == 0))[:, None]
    stds, weights = torch.linspace(0.05, 0.2, 8, dtype=torch.float64), torch.linspace(2.0, 1.0, 8, dtype=torch.float64)
    return GaussianMixtureOracle(means, stds, weights, LinearSchedule())


def exact_problem(starts: int = 500) -> Problem:
    """The bumps, and where the exact ODE ends."""
    oracle = eight_bumps()
    start = float(oracle.schedule.sigma(torch.ones(()))) * NoiseSource(0, range(starts)).start((2,), torch.float64)
    exact = AdaptiveSampler(rtol=1e-10, atol=1e-10, max_calls=100_000)
    end = sample(exact, oracle, start, make_grid("uniform", 1, oracle.schedule))
    return Problem(oracle, start, end, None, 1e-9, 0)


def digits_problem(model, count: int = 32) -> Problem:
    """The digits model with its own guidance, each class in turn, and its converged samples."""
    labels = [model.spec.class_names[k % 10] for k in range(count)]
    denoiser = Guided(model.denoiser, ClassifierFreeGuidance(scale=model.sampling.guidance))
    noise = NoiseSource(0, range(count)).start(model.blueprint.codec.shape(model.spec.shape))
    start = float(denoiser.schedule.sigma(torch.ones(()))) * noise
    return converged(denoiser, start, model.condition(labels, count), tolerance=3e-4)


def error_by_calls(problem: Problem, allowed: tuple[str, ...], title: str, error: str) -> Image.Image:
    """Every sampler on its best grid at each budget; prints what is drawn, and which grid that was."""
    curves, found = {}, {}
    for spec in (*SHOWN, ROUGH):
        sampler = samplers.build(spec)
        name = spec if isinstance(spec, str) else "arc(3, 4)"
        pairs = [(sampler, grid) for grid in grids_for(problem.denoiser.schedule) if grid in allowed]
        best = [tried[0] for calls in CALLS if (tried := measure(problem, pairs, calls))]
        found[name] = best
        print(name.ljust(10), *(f"{c.calls}: {c.distance:.3g} {c.grid}" for c in best), sep="  ", flush=True)
        if name in SHOWN:
            curves[name] = ([c.calls for c in best], [c.distance for c in best])
    return lines(curves, "network calls", error, title, log_x=True, log_y=True)


def grid_rows(names=tuple(GRIDS), steps: int = 10, width: int = 1400) -> Image.Image:
    """Where each grid puts its steps, by how much noise is in the data there; a digit shows what that looks like."""
    schedule, size, row, left, right = LinearSchedule(), 25, 62, 210, 60
    high, end = 200.0, 0.0025

    def across(ratio: float) -> float:
        share = (math.log10(max(ratio, end)) - math.log10(end)) / math.log10(high / end)
        return left + share * (width - left - right)

    top, ticks = 150, (0.01, 0.1, 1.0, 10.0, 100.0)
    sheet = Image.new("RGB", (width, top + row * len(names) + 100), style.PAPER)
    draw = ImageDraw.Draw(sheet)
    bottom = top + row * len(names)
    digit, noise = (
        datasets.build("digits").load().x[[0]].float(),
        torch.randn(1, 1, 8, 8, generator=torch.manual_seed(0)),
    )
    for tick in (*ticks, end):
        draw.line([(across(tick), top), (across(tick), bottom)], fill=style.RULE, width=2)
        ratio = 0.0 if tick == end else tick
        noisy = ((digit / 127.5 - 1) + ratio * noise) / (1 + ratio)
        thumb = image_grid((127.5 * (noisy + 1)).clamp(0, 255), columns=1, scale=13, gap=0)
        sheet.paste(thumb, (round(across(tick) - thumb.width / 2), 25))
        label = "data" if tick == end else f"{tick:g}"
        style.write(sheet, (across(tick), bottom + 12), label, size, style.MUTED, "ma")
    style.write(
        sheet, ((left + width) / 2, bottom + 50), "noise in units of the signal, σ / α", size, style.MUTED, "ma"
    )
    for i, name in enumerate(names):
        y = top + row * (i + 0.5)
        style.write(sheet, (20, y), name, size, style.INK, "lm")
        draw.line([(left, y), (width - right, y)], fill=style.RULE, width=2)
        for t in make_grid(name, steps, schedule, sigma_data=0.5):
            alpha, sigma = scales(schedule, float(t))
            x, radius = across(sigma / alpha), 11
            fill = style.PAPER if t == 0 else style.PALETTE[0]
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=style.PALETTE[0], width=4)
    return sheet


def other_steps(model) -> Image.Image:
    """The same seed with more and more steps: along one Brownian path a sample, and with noise drawn anew each step."""
    denoiser, count, rows = model.denoiser, 16, []
    for make in (lambda: BrownianNoise(1, range(count), denoiser.schedule), lambda: NoiseSource(1, range(count))):
        ends = []
        for steps in CHANGED:
            noise = make()
            start = noise.start(model.blueprint.codec.shape(model.spec.shape))
            x = float(denoiser.schedule.sigma(torch.ones(()))) * start
            grid = make_grid("karras", steps, denoiser.schedule)
            ends.append(sample(DPMSolverPPSampler(sde=True), denoiser, x, grid, noise=noise))
        changes = [f"{root_mean_square(end - ends[0]):.3f}" for end in ends[1:]]
        print(type(noise).__name__, "from 20 steps to", *CHANGED[1:], "the samples move by", *changes, flush=True)
        frames = [image_grid(model.blueprint.codec.decode(x), columns=4, scale=7, gap=4) for x in ends]
        rows.append(strip(frames, [f"{n} steps" for n in CHANGED]))
    return stack(rows, ["one Brownian path for each sample", "noise drawn anew for each step"])


def four_lines() -> Image.Image:
    """The quarter circle and the other three lines, and what has to be integrated along each."""
    figure, (left, right) = _axes(2, 9.0, 4.3)
    blue, orange, green, red = style.PALETTE[:4]
    quarter = np.linspace(0, math.pi / 2, 200)
    left.plot(np.cos(quarter), np.sin(quarter), color=blue, linewidth=2.6)
    left.plot([1, 1], [0, 1.62], color=orange, linewidth=1.6)
    left.plot([0, 1.62], [1, 1], color=green, linewidth=1.6)
    left.plot([0, 1], [1, 0], color=red, linewidth=1.6)
    theta = math.radians(55)
    ray = np.array([math.cos(theta), math.sin(theta)])
    left.plot([0, 1.12 * ray[0] / ray[0]], [0, 1.12 * ray[1] / ray[0]], color=style.FAINT, linewidth=1.2, zorder=1)
    for at, colour in ((1 / ray[0], orange), (1 / ray[1], green), (1 / ray.sum(), red), (1.0, blue)):
        left.plot(*(at * ray), "o", color=colour, markersize=7, zorder=4)
    small = np.linspace(0, theta, 50)
    left.plot(0.22 * np.cos(small), 0.22 * np.sin(small), color=style.MUTED, linewidth=1)
    words = [
        (0.25, 0.1, "θ", style.MUTED, "left"), (0.79, 0.78, "arc", blue, "left"), (1.03, 1.3, "noise line", orange, "left"),
        (1.3, 1.04, "data line", green, "left"), (0.36, 0.5, "flow line", red, "right"),
        (1.0, -0.1, "data", style.INK, "center"), (-0.04, 1.0, "noise", style.INK, "right"),
    ]  # fmt: skip
    for x, y, text, colour, align in words:
        left.text(x, y, text, color=colour, fontsize=9.5, ha=align, va="center")
    left.set(xlim=(-0.25, 1.7), ylim=(-0.2, 1.7), aspect="equal", xticks=[], yticks=[])
    left.set_xlabel("signal, α s")
    left.set_ylabel("noise, σ")
    angles, slopes = _along_a_path()
    names = {"noise line: ε̂": orange, "data line: x̂₀ / s": green, "flow line: ε̂ − x̂₀ / s": red, "arc: F": blue}
    for (name, colour), slope in zip(names.items(), slopes, strict=True):
        right.plot(angles, slope, color=colour, linewidth=2.6 if name == "arc: F" else 1.4, label=name)
    right.set(xlim=(90, 0), xlabel="angle θ, from noise (90°) to data (0°)", ylabel="slope")
    return _drawn(figure, left, right)


def _along_a_path():
    """The slopes of the four lines along one exact path to the eight bumps, its first coordinate, by angle in degrees."""
    oracle = eight_bumps()
    schedule, s = oracle.schedule, oracle.sigma_data
    degrees = np.linspace(89.0, 2.0, 120)
    times = [time_at(schedule, -2 * math.log(math.tan(math.radians(a)) * s)) for a in degrees]
    x = NoiseSource(0, [7]).start((2,), torch.float64)
    slopes = []
    exact = AdaptiveSampler(rtol=1e-8, atol=1e-8)
    for t, following in zip(times, [*times[1:], None], strict=True):
        time = torch.tensor(t, dtype=torch.float64)
        denoised = oracle(x, time)
        row = []
        for place in (noise_line(schedule, t), data_line(schedule, t), flow_line(schedule, t), arc(schedule, t, s)):
            row.append(float((place.from_x * x + place.from_denoised * denoised)[0, 0]))
        row[1] /= s
        row[2] = row[0] - row[1]
        slopes.append(row)
        if following is not None:
            x = sample(exact, oracle, x, torch.tensor([t, following], dtype=torch.float64))
    return degrees, np.array(slopes).T


def arc_steps() -> Image.Image:
    """Six steps on the arc: the bumps as they come out of the noise."""
    oracle = eight_bumps()
    grid = make_grid("angle", 6, oracle.schedule, sigma_data=oracle.sigma_data)
    noise = NoiseSource(0, range(1000)).start((2,), torch.float64)
    frames, captions, x = [], [], noise
    times = grid.tolist()
    for k in range(len(times)):
        alpha, sigma = scales(oracle.schedule, times[k])
        degrees = math.degrees(math.atan2(sigma, alpha * oracle.sigma_data))
        shown = x / math.hypot(sigma, alpha * oracle.sigma_data)
        frames.append(scatter(shown.numpy(), size=190, limits=3.2))
        captions.append(f"{degrees:.0f} degrees" if k else f"noise, {degrees:.0f}")
        x = sample(ArcSampler(), oracle, noise, grid[: k + 2]) if k + 1 < len(times) else x
    captions[-1] = "data, 0"
    return strip(frames, captions)


def _axes(panels: int, width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=144, facecolor=style.PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _drawn(figure, *axes) -> Image.Image:
    for ax in axes:
        ax.tick_params(colors=style.MUTED, labelsize=8.5, length=0)
        for side, spine in ax.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(style.FRAME)
        ax.xaxis.label.set(color=style.MUTED, fontsize=9)
        ax.yaxis.label.set(color=style.MUTED, fontsize=9)
    axes[-1].grid(True, color=style.RULE, linewidth=0.8)
    axes[-1].legend(fontsize=8.5, labelcolor=style.INK, edgecolor="none", facecolor=style.PAPER, framealpha=0.85)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--digits", default="runs/digits", help="a run of the recipe digits; trained where it is missing"
    )
    parser.add_argument("--only", default="", help="names of pictures, parted by commas")
    arguments = parser.parse_args()

    def digits():
        return load(arguments.digits) if Path(arguments.digits).exists() else train("digits", out=arguments.digits)

    free = tuple(name for name in GRIDS if name not in ("leading", "linspace"))
    made = {
        "grids": grid_rows,
        "arc-lines": four_lines,
        "arc-steps": arc_steps,
        "samplers-exact": lambda: error_by_calls(
            exact_problem(), free, "eight bumps, known exactly: each sampler on its best grid", "error of the samples"
        ),
        "brownian": lambda: other_steps(digits()),
        "samplers-digits": lambda: error_by_calls(
            digits_problem(digits()), free, "a trained model of digits: each sampler on its best grid",
            "distance to converged samples",
        ),
    }  # fmt: skip
    wanted = arguments.only.split(",") if arguments.only else list(made)
    for name in wanted:
        print(name, flush=True)
        made[name]().quantize(96).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
