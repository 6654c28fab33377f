"""Splits the distance between a model's samples and real data into its parts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.base import Dataset, Progress
from ...errors import BadOption, DataError, ModelFolderError
from ...evaluation.metrics.base import Estimate, metrics
from ...files import write_atomically
from ...model import Model
from ...model_folder import folder_beside
from ...options import build
from ...precision import Precision, find_device
from ...shipped import folder_of
from ..towers import open_towers
from .caption_finding import words_of_model
from .levels import measure_levels
from .parts import ErrorParts, Part
from .parts_page import write_parts_page
from .plan import EvaluationSettings
from .real import RealData
from .run import Judged, find_subject, judge
from .subject import ModelSubject, Request, Subject

FINE = 10
"""How many times as many steps stand for endlessly many."""
FEWEST = 100
"""Steps that stand for endlessly many, at least."""


class ReconstructionSubject(Subject):
    """Real samples through the codec and back: what a perfect denoiser would make.

    Args:
        model: Whose codec.
        real: Samples that nobody learned, or where there are none those that were.
    """

    def __init__(self, model: Model, real: Dataset) -> None:
        self.model, self.real = model, real
        self.name, self.spec, self.most = "codec", real.spec, len(real)

    def describe(self) -> dict[str, Any]:
        """See `Subject.describe`."""
        return {"codec of": self.model.hash, "of": self.real.fingerprint()}

    def samples(self, first: int, count: int, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """See `Subject.samples`."""
        codec, x = self.model.blueprint.codec, self.real.x[first : first + count]
        with torch.no_grad():
            back = codec.decode(codec.encode(x)).cpu()
        return back.round().clamp(0, 255).to(torch.uint8) if self.spec.kind == "image" else back.float()

    def labels(self, count: int) -> Tensor | None:
        """See `Subject.labels`."""
        return None if self.real.labels is None else self.real.labels[:count]


def error_parts(
    what: str | Path | Model,
    *,
    data: str | None = None,
    n: int | None = None,
    metric: str | None = None,
    fine: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
    clip: str | Path | None = None,
    reference: str | Path | None = None,
    **request: Any,
) -> ErrorParts | None:
    """Splits the distance between a model's samples and real data into parts.

    The same noise is made into samples as they are asked for, with many more steps, and with these and no guidance; real data goes
    through the codec and back. Each is judged like any samples, and the differences are the parts.

    Args:
        what: A model, a model or run folder.
        data: Real data; what the run learned by default.
        n: Samples of each; 1,000 of pictures and 2,000 of points by default.
        metric: A distance; FID by default, the energy distance of points.
        fine: Steps that stand for endlessly many; ten times those that are asked for, and at least 100, by default.
        out: Where all of it is kept; the same call goes on with what stands there.
        seed: Of the noise, and of whatever the metric draws.
        device: What a model that stands in a folder is sampled on.
        precision: Likewise.
        progress: Told what is being done.
        stop: Asked between blocks of samples; when true, what is done stays.
        command: The command that a person gave, for the page.
        clip: A run of kind clip, or the folder of a CLIP that others trained, which says whether samples match their prompts; of
            models that know words.
        reference: Another model of the same data and process, beside whose loss at each noise level that of this one is held; by
            default the least that is possible, or where that is not known the best linear denoiser of the data.
        **request: How the model is sampled: sampler, steps, grid, guidance, label, prompt.

    Returns:
        The parts; None where it was stopped.

    Raises:
        BadOption: The metric is no distance, or times are given of which there cannot be more.
        IncompatibleParts: The reference is of other data, or of another process.
        UnnoiseError: As in `evaluate`.
    """
    if not isinstance(what, Model) and not folder_of(what).exists():
        raise ModelFolderError(f"there is no model at {what}: give a model folder, or the run folder around it")
    towers = None if clip is None else open_towers(clip)
    other = None if reference is None else Model.load(reference).on(find_device(device), precision)
    asked = build(Request, {"seed": seed, **request})
    subject, real = find_subject(what, asked, data=data, progress=progress, device=device, precision=precision)
    if not isinstance(subject, ModelSubject):
        raise DataError(f"{what} is no model: there are no parts of a folder's error to tell apart")
    chosen = metric or ("energy" if subject.spec.kind == "points" else "fid")
    if metrics[chosen].better != "lower":
        raise BadOption(f"metric: expected a distance, such as fid, kid or energy, got {chosen!r}")
    folder = Path(out) if out is not None else folder_beside(subject.model.path, "diagnosis")
    settings = EvaluationSettings(metrics=(chosen,), memorisation=False, seed=seed)
    # Before the samples, which take long: a reference that does not fit is told at once.
    levels = measure_levels(subject.model, real, other)
    judged: dict[str, Judged] = {}
    for name, each in _subjects(subject, real, fine).items():
        place = f"{name}-{_short(each)}"
        found = judge(each, real, settings, folder / place, n, progress, stop, command, page=False)
        if found is None:
            return None
        judged[name] = found
    floor = judged["as asked"].result.baseline.get(chosen)
    words = words_of_model(subject, real, judged["as asked"].result.made, towers, seed, progress)
    idle = not subject.asks and subject.settled["guidance"]["scale"] != 1
    notes = (*((_unguided(subject),) if idle else ()), *levels.notes)
    parts = ErrorParts(chosen, judged, floor, _parts(chosen, judged, floor, subject), levels, folder, words, notes)
    write_atomically(folder / "parts.json", (json.dumps(parts.plain(), indent=1) + "\n").encode())
    write_parts_page(parts, real, command)
    return parts


def _subjects(subject: ModelSubject, real: RealData, fine: int | None) -> dict[str, Subject]:
    settled = subject.settled
    steps = fine or max(FINE * int(settled["steps"]), FEWEST)
    made: dict[str, Subject] = {"as asked": subject}
    made["many steps"] = _again(subject, steps=steps)
    if settled["guidance"]["scale"] != 1 and subject.asks:
        made["no guidance"] = _again(subject, steps=steps, guidance=1.0)
    if subject.model.blueprint.codec.learned:
        made["codec"] = ReconstructionSubject(subject.model, real.held_out or real.train)
    return made


def _unguided(subject: ModelSubject) -> str:
    scale = subject.settled["guidance"]["scale"]
    return f"no guidance: nothing is asked for (--label, --prompt), so that its scale of {scale:g} does nothing"


def _again(subject: ModelSubject, **other: Any) -> ModelSubject:
    """What the same model makes of the same noise, asked for the same, in another way."""
    return ModelSubject(subject.model, replace(subject.request, **other), subject.real, subject.captions)


def _short(subject: Subject) -> str:
    return hashlib.sha256(json.dumps(subject.describe(), sort_keys=True).encode()).hexdigest()[:6]


def _parts(
    metric: str, judged: Mapping[str, Judged], floor: Estimate | None, subject: ModelSubject
) -> tuple[Part, ...]:
    """The differences between neighbours on the way from real data to the samples as they are asked for."""
    found = {name: each.result.estimates[metric] for name, each in judged.items()}
    plain = found.get("no guidance", found["many steps"])
    steps, scale = subject.settled["steps"], subject.settled["guidance"]["scale"]
    way: list[tuple[str, Estimate | None, Estimate, str, str]] = []
    if "codec" in found:
        way.append(
            ("codec", floor, found["codec"], "real data through the codec and back",
             "train the autoencoder longer, or give it more channels of latents"),
        )  # fmt: skip
    way.append(
        ("denoiser", found.get("codec", floor), plain, "samples with many steps and no guidance",
         "train longer, or a larger network, or with more data"),
    )  # fmt: skip
    if "no guidance" in found:
        way.append(
            ("guidance", plain, found["many steps"], f"guidance {scale:g} in place of 1", f"lower --guidance (now {scale:g})")
        )  # fmt: skip
    way.append(
        ("steps", found["many steps"], found["as asked"], f"{steps} steps in place of many",
         f"take more --steps (now {steps}), another --sampler, or `unnoise tune`"),
    )  # fmt: skip
    return tuple(_difference(*each) for each in way)


def _difference(name: str, before: Estimate | None, after: Estimate, meaning: str, remedy: str) -> Part:
    """What lies between two numbers, whose errors are taken to be independent: they share their noise, so it is surer than that."""
    if before is None:
        return Part(name, after.value, after.low, after.high, meaning, remedy)
    value = after.value - before.value
    below = math.hypot(after.value - after.low, before.high - before.value)
    above = math.hypot(after.high - after.value, before.value - before.low)
    return Part(name, value, value - below, value + above, meaning, remedy)
