"""Judging in one call: what is judged and what by are found, the samples made, the numbers worked out, the page written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.base import Progress
from ...errors import BadOption, DataError
from ...model import Model
from ...model_folder import folder_beside
from ...options import build
from ...precision import Precision, find_device
from ...training.parallel import told_by_torchrun
from ..places.base import Place, places
from .evaluation import Evaluation, Result
from .page import write_page
from .plan import EvaluationSettings, default_number
from .real import RealData, real_data
from .subject import FileSubject, ModelSubject, Request, Subject, is_model


@dataclass(frozen=True)
class Judged:
    """A finished evaluation.

    Args:
        name: What was judged, in a word.
        result: What was found.
        folder: Where all of it stands.
    """

    name: str
    result: Result
    folder: Path

    @property
    def page(self) -> Path:
        """The page that tells of it."""
        return self.folder / "index.html"


def find_subject(
    what: str | Path | Model,
    request: Request | Mapping[str, Any] | None = None,
    *,
    data: str | None = None,
    train: str | None = None,
    size: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    copies: bool = True,
) -> tuple[Subject, RealData]:
    """What is judged, and the real data that it is judged by.

    Args:
        what: A model, a model or run folder, or samples: a folder of pictures, Parquet, NPY/NPZ or CSV.
        request: How a model is sampled.
        data: Where the real data stands; what a run was trained on by default.
        train: Where the data stands that must not be copied.
        size: Side that pictures are brought to; 0 leaves them as they are.
        progress: Told while data is read.
        device: What a model that stands in a folder is sampled on; one that is given stays where it is.
        precision: Likewise.
        copies: Whether copies of what was learned are looked for.

    Raises:
        DataError: Something cannot be read, or cannot be compared.
        BadOption: The model cannot be sampled so, or samples of a folder are asked to be.
    """
    place = find_device(device, told_by_torchrun().local_rank)
    asked = request if isinstance(request, Request) else build(Request, dict(request or {}))
    model = what if isinstance(what, Model) else Model.load(what).on(place, precision) if is_model(what) else None
    if model is None:
        if not Path(str(what)).exists():
            raise DataError(f"there is nothing at {what}: give a model, a run folder, or a folder of samples")
        if asked != Request():
            raise BadOption(f"{what} holds samples and no model: sampling options say nothing about it")
    real = real_data(model, data, train, size, progress, copies)
    if model is None:
        return FileSubject(str(what), real.reference.spec, size, progress), real
    return ModelSubject(model, asked, real.reference, real.held_out), real


def default_folder(subject: Subject) -> Path:
    """Where an evaluation is kept if nothing is said: beside the model, under a name that tells how it was sampled.

    Args:
        subject: What is judged.
    """
    described = subject.describe()
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:6]
    if isinstance(subject, ModelSubject):
        settled = subject.settled
        how = f"{settled['sampler']['name']}-{settled['steps']}-g{settled['guidance']['scale']:g}"
        place = folder_beside(subject.model.path, "evaluation")
    else:
        how, place = subject.name, Path("evaluation")
    return place / f"{how}-{key}"


def evaluate(
    what: str | Path | Model,
    *,
    data: str | None = None,
    train: str | None = None,
    n: int | None = None,
    metrics: tuple[str, ...] | None = None,
    features: str | Mapping[str, Any] | None = None,
    memorisation: bool = True,
    size: int = 0,
    seed: int = 0,
    out: str | Path | None = None,
    place: str | Mapping[str, Any] | Place = "here",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
    **request: Any,
) -> Judged | None:
    """Judges a model, or samples that stand in a folder, by real data: numbers with intervals, copies, and a page of it all.

    Args:
        what: A model, a model or run folder, or a folder or file of samples.
        data: Real data: a folder of images, Parquet, NPY/NPZ, CSV, or a shipped data set's name; by default what the run
            was trained on.
        train: The data that must not be copied; by default what the run was trained on, else `data`.
        n: How many samples; 1,000 of pictures and 2,000 of points by default, or all that a folder holds.
        metrics: Names; those that suit the data by default.
        features: What pictures are compared by: a name or {name: ..., option: value}; `own` by default.
        memorisation: Whether to look for copies of the training data.
        size: Side that pictures are brought to; 0 leaves them as they are.
        seed: Of the noise, and of whatever a metric draws.
        out: Where all of it is kept; the same call goes on with what stands there.
        place: Where samples are made: "here", "ray", or {name: ray, workers: 8}; the numbers are the same.
        device: What a model that stands in a folder is sampled on; one that is given stays where it is.
        precision: Likewise; bf16 moves pictures by about a grey level.
        progress: Told what is being done.
        stop: Asked between blocks of samples; when true, what is done stays.
        command: The command that a person gave, for the page.
        **request: How a model is sampled; the options of `Request`.

    Returns:
        What was found; None where it was stopped.

    Raises:
        UnnoiseError: Something must be mended first; the message says what.
    """
    asked = {**request, **({"seed": seed} if isinstance(what, Model) or is_model(what) else {})}
    settings = build(
        EvaluationSettings,
        {"metrics": metrics, "features": features, "memorisation": memorisation, "seed": seed},
    )
    where: Place = places.build(place, "on")
    subject, real = find_subject(
        what, asked, data=data, train=train, size=size, progress=progress, device=device, precision=precision,
        copies=memorisation,
    )  # fmt: skip
    folder = Path(out) if out is not None else default_folder(subject)
    return judge(subject, real, settings, folder, n, progress, stop, command, place=where)


def judge(
    subject: Subject,
    real: RealData,
    settings: EvaluationSettings,
    folder: Path,
    n: int | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
    page: bool = True,
    place: Place | None = None,
) -> Judged | None:
    """Runs an evaluation to its end; arguments as in `evaluate`. Under torchrun every process makes its part of the samples.

    Returns:
        What was found; None where it was stopped, and in every process but the first.

    Raises:
        BadOption: n is too small, or the samples are shared out twice.
        UnnoiseError: As in `evaluate`.
    """
    if n is not None and n < 2:
        raise BadOption(f"n: at least 2 samples can be judged, got {n}")
    if n is not None and subject.most is not None:
        n = min(n, subject.most)
    count = default_number(subject.spec, subject.most) if n is None else n
    with _together() as (rank, world, meet):
        if rank:
            meet()  # the first process makes the folder, and trains the extractor
        elsewhere = place if place is not None and place.elsewhere else None
        if elsewhere and world > 1:
            raise BadOption(
                f"on: the processes of torchrun share the samples out already: take torchrun or `--on {elsewhere.registered_name}`"
            )
        evaluation = Evaluation(subject, real, settings, folder)
        extractor = evaluation.prepare(progress)
        if not rank:
            meet()
        if elsewhere and not evaluation.make_at(elsewhere, count, extractor, progress, stop):
            return None
        whole = evaluation.make(count, extractor, progress, stop, (rank, world))
        meet()
        if not whole or rank:
            return None
        result = evaluation.measure(count, extractor, progress)
        if page:
            write_page(result, folder, command)
        return Judged(subject.name, result, folder)


@contextmanager
def _together() -> Iterator[tuple[int, int, Callable[[], None]]]:
    """This process's number, how many there are, and a way to wait for all; by torchrun's variables, else alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1, lambda: None
        return
    import torch.distributed as dist

    begun = not dist.is_initialized()
    if begun:
        dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), world, lambda: dist.barrier()
    finally:
        if begun:
            dist.destroy_process_group()
