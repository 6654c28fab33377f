"""Tuning one model for one budget of network calls: the reference, the search, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import BadOption, DataError, ModelFolderError
from ..files import write_atomically
from ..guidance.base import Guided
from ..guidance.classifier_free import ClassifierFreeGuidance
from ..model import Model
from ..model_folder import model_place, read_tuned, write_tuned
from ..randomness import NoiseSource
from ..samplers.base import samplers
from ..tuning.problem import Problem, converged
from ..tuning.search import Candidate, Found, frontier, search
from .judging.captions_asked import CaptionsAsked, captioned
from .run_data import run_data

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tuned:
    """A finished search.

    Args:
        found: What it found.
        calls: The budget.
        guidance: The scale that it was made for.
        problem: What was measured on.
        entry: What `sample --sampler tuned` needs, as plain values.
    """

    found: Found
    calls: int
    guidance: float
    problem: Problem
    entry: Mapping[str, Any]

    @property
    def baseline(self) -> Candidate | None:
        """DPM-Solver++(2M) on its best fixed grid at the budget."""
        return next((c for c in self.found.table if c.sampler == samplers.build("dpmpp_2m")), None)

    @property
    def candidates(self) -> list[Candidate]:
        """Every solver and grid at every budget."""
        return [*self.found.table, *self.found.others]


def tune(
    model: Model,
    calls: int,
    *,
    samples: int = 64,
    guidance: float | None = None,
    label: str | int | None = None,
    prompt: str | None = None,
    seed: int = 0,
    tolerance: float = 5e-3,
    progress: Progress = lambda what, done, total: None,
) -> Tuned:
    """Finds solver, order, times and weights for a model and a budget of network calls.

    Args:
        model: Any.
        calls: Network calls a sample, guidance not counted; at least 2.
        samples: Noises that it is measured on; half of them choose, the other half give the distances.
        guidance: The scale; the model's own by default. Above 1 other times are best.
        label: One class for all; by default a model with classes is asked for each in turn.
        prompt: Words for all; by default a model that knows words is asked for captions of what its run held out, where they are
            to be found, or of what it learned.
        seed: Of the noises, and of which captions.
        tolerance: Of the converged ends, in units of sigma_data.
        progress: Told what is done, how many of it, and how many there are.

    Raises:
        BadOption: The budget or the number of samples is too small, or the model's trajectories do not converge.
    """
    scale = model.sampling.guidance if guidance is None else guidance
    names = model.spec.class_names
    asked = [names[i % len(names)] for i in range(samples)] if names and label is None else label
    cond = model.condition(asked, samples, _captions(model, samples, seed) if prompt is None else prompt)
    device = next(model.denoiser.parameters()).device
    if cond is not None:
        cond = {name: value.to(device) for name, value in cond.items()}
    denoiser = Guided(model.denoiser, ClassifierFreeGuidance(scale=scale))
    noise = NoiseSource(seed, range(samples)).start(model.blueprint.codec.shape(model.spec.shape)).to(device)
    start = float(denoiser.schedule.sigma(torch.ones((), dtype=torch.float64))) * noise
    problem = converged(
        denoiser, start, cond, tolerance, lambda done, total: progress("converged samples", done, total)
    )
    budgets = sorted({max(2, calls // 2), calls * 2})
    found = search(problem, calls, budgets, progress=progress)
    entry = {
        "model": model.hash,
        "sampler": samplers.describe(found.tuned.sampler),
        "times": [float(t) for t in found.tuned.times],
        "calls": found.tuned.calls,
        "guidance": scale,
        "distance": found.tuned.distance,
        "best fixed": {
            "sampler": samplers.describe(found.table[0].sampler),
            "grid": found.table[0].grid,
            "distance": found.table[0].distance,
        },
        "samples": samples,
        "seed": seed,
    }
    return Tuned(found, calls, scale, problem, entry)


def _captions(model: Model, samples: int, seed: int) -> list[str] | None:
    """Captions of the data of a model's run; None where it knows no words, or its data is not to be found."""
    if model.blueprint.text is None:
        return None
    try:
        data = run_data(model)
    except DataError:
        return None
    found = None if data is None else captioned(data.held_out, data.train)
    return None if found is None else CaptionsAsked(found, seed).texts(0, samples)


def keep(tuned: Tuned, path: str | Path) -> list[Path]:
    """Writes what was found into the model's folder: for `sample --sampler tuned`, the table as JSON, and the plot.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = model_place(path)
    try:
        entries = read_tuned(folder)
    except ModelFolderError:
        entries = {}
    current = {n: entry for n, entry in entries.items() if entry["model"] == tuned.entry["model"]}
    written = [write_tuned(folder, {**current, tuned.calls: tuned.entry})]
    table = folder / f"tuned-{tuned.calls}-table.json"
    rows = [
        {
            "sampler": samplers.describe(c.sampler),
            "grid": c.grid,
            "steps": len(c.times) - 1,
            "calls": c.calls,
            "distance": c.distance,
        }
        for c in [tuned.found.tuned, *tuned.candidates]
    ]
    write_atomically(table, (json.dumps(rows, indent=1) + "\n").encode())
    written.append(table)
    plot = folder / f"tuned-{tuned.calls}.png"
    draw(tuned).save(plot)
    return [*written, plot]


def draw(tuned: Tuned) -> Any:
    """Error against network calls of every candidate, with the Pareto front and what was found.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    from ..pictures.frontier import frontier_plot

    def named(candidates: Sequence[Candidate]) -> list[tuple[str, float, float]]:
        return [(f"{c.label}, {c.grid}", float(c.calls), c.distance) for c in candidates if c.distance < 1e6]

    found = tuned.found.tuned
    return frontier_plot(
        named(tuned.candidates),
        named(frontier(tuned.candidates)),
        [(f"{found.label}, tuned", float(found.calls), found.distance)],
        error="distance to the converged samples",
        title=f"tuned for {tuned.calls} network calls, guidance {tuned.guidance:g}",
    )


def check_budget(calls: int, samples: int) -> None:
    """Refuses what cannot be tuned, before anything is computed.

    Raises:
        BadOption: Too few calls or samples.
    """
    if calls < 2:
        raise BadOption(f"steps: one network call leaves nothing to tune; give at least 2, got {calls}")
    if samples < 4:
        raise BadOption(f"samples: at least 4, half to choose by and half to measure on, got {samples}")
