"""The real data that samples are judged by: what they should be like, what they must not be copies of, what nobody learned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...data.base import Dataset, Progress, Spec
from ...errors import DataError
from ...model import Model
from ..run_data import RunData, in_memory, run_data, source_like

_KINDS = {"image": "pictures", "points": "points", "array": "arrays"}


@dataclass(frozen=True)
class RealData:
    """Real data, and what a person should know of it.

    Args:
        reference: What samples are compared with.
        train: What the model was trained on, or is taken to be: what samples must not be copies of.
        held_out: Real data that the model never saw, the measure of how near to `train` anything comes by chance; or None.
        notes: One line each.
        unknown: Why it is not known what the model was trained on, where `train` only stands in for it; else empty.
    """

    reference: Dataset
    train: Dataset
    held_out: Dataset | None
    notes: tuple[str, ...] = ()
    unknown: str = ""


def real_data(
    model: Model | None,
    data: str | None = None,
    train: str | None = None,
    size: int = 0,
    progress: Progress | None = None,
    copies: bool = True,
) -> RealData:
    """The real data for a model, or for a folder of samples.

    Args:
        model: What is judged, or None for samples that stand in a folder.
        data: Where the data stands that samples are compared with; what the run was trained on by default.
        train: Where the data stands that must not be copied; what the run was trained on, else `data`, by default.
        size: Side that images are brought to; 0 leaves them as they are.
        progress: Told while data is read.
        copies: Whether copies are looked for: else what the run learned is not read where `data` is enough.

    Raises:
        DataError: It is not known where the data stands, or it cannot be read or compared.
    """
    run, unknown = _of_run(model, data, train, progress, copies)
    notes = ["the data has changed since the model was trained"] if run is not None and run.changed else []
    notes += run.notes if run is not None else ()
    if data is None and run is None:
        raise DataError("it is not known what the samples should be like: give real data with --data")
    if run is not None and data is None:
        reference = run.train
    else:
        reference, partly = in_memory(source_like(str(data), model, size).load(progress))
        notes += partly
    if train is not None:
        trained, partly = in_memory(source_like(train, model, size).load(progress))
        notes += partly
    elif run is not None:
        trained = run.train
    else:
        trained = reference
    if trained is reference and train is None and run is None and not unknown:
        notes.append(
            "what the samples' model was trained on is not known: --data is taken for it (--train says otherwise)"
        )
    for name, each in (("--data", reference), ("the training data", trained)):
        _check(name, each)
    if model is not None:
        refuse_other_shape("what the model makes", model.spec, reference.spec)
    refuse_other_shape("the training samples", trained.spec, reference.spec)
    held_out, told = _held_out(reference, trained, run)
    skipped = [f"not read: {line}" for line in reference.skipped[:5]]
    if len(reference.skipped) > 5:
        skipped.append(f"not read: {len(reference.skipped) - 5} more of the real data")
    return RealData(reference, trained, held_out, (*notes, *skipped, *told), unknown)


def _of_run(
    model: Model | None, data: str | None, train: str | None, progress: Progress | None, copies: bool
) -> tuple[RunData | None, str]:
    """What a run learned from, where that is needed; or why it is not known, where the data that was given is enough."""
    if model is None or (data is not None and train is not None):
        return None, ""
    if data is not None and not copies and model.blueprint.text is None:  # models of words are asked what it held out
        return None, "nobody asked for it"
    try:
        return run_data(model, progress), ""
    except DataError as error:
        if data is None:
            raise DataError(f"the data of the run is not found from here ({error}): give it with --data") from None
        return None, f"what the model learned from is not found ({error}): give it with --train"


def _check(name: str, data: Dataset) -> None:
    if not len(data):
        raise DataError(f"{name} holds no samples")
    if data.x.dtype.is_floating_point:
        bad = int((~torch.isfinite(data.x)).flatten(1).any(1).sum())
        if bad:
            raise DataError(f"{bad} of {len(data)} samples of {name} hold NaN or infinity: remove or repair them")


def _held_out(reference: Dataset, train: Dataset, run: RunData | None) -> tuple[Dataset | None, list[str]]:
    """What nobody learned: what the run held out, else what of `reference` is not in `train`."""
    if run is not None and len(run.held_out) and run.held_out.spec.shape == train.spec.shape:
        return run.held_out, []
    if reference is train:
        return None, []
    known = set(_digests(train))
    fresh = [i for i, digest in enumerate(_digests(reference)) if digest not in known]
    if not fresh:
        return None, []
    told = []
    if len(fresh) < len(reference):
        told.append(
            f"{len(reference) - len(fresh):,} of {len(reference):,} real samples stand in the training data too: "
            "the rest is what the model never saw"
        )
    return reference.take(torch.tensor(fresh)), told


def _digests(data: Dataset) -> list[bytes]:
    rows = data.x.contiguous().numpy().reshape(len(data), -1)
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def refuse_other_shape(what: str, spec: Spec, real: Spec) -> None:
    """Refuses samples that cannot be compared with the real data.

    Args:
        what: The samples, for the message.
        spec: Theirs.
        real: Of the real data.

    Raises:
        DataError: They are of another kind, size or number of channels.
    """
    if (spec.kind == "image") != (real.kind == "image"):
        raise DataError(
            f"{what} cannot be compared with the real data: {_KINDS[spec.kind]} with {_KINDS[real.kind]}: give data of one kind"
        )
    if spec.shape == real.shape:
        return
    if spec.kind == "image" and spec.shape[0] != real.shape[0]:
        mend = "give pictures with as many channels"
    else:
        mend = "bring both to one size with --size" if spec.kind == "image" else "give data of the same shape"
    raise DataError(f"{what} have shape {tuple(spec.shape)}, the real data {tuple(real.shape)}: {mend}")


def as_labels_of(names: Sequence[str], labels: torch.Tensor, real: Spec) -> torch.Tensor:
    """Labels by the real data's numbers.

    Args:
        names: Of the labels, in the order of their numbers.
        labels: Shape (N,), int64.
        real: Of the real data.

    Raises:
        DataError: Some names are unknown to the real data.
    """
    used = sorted({names[int(i)] for i in labels.unique()})
    unknown = [name for name in used if name not in real.class_names]
    if unknown:
        known = ", ".join(real.class_names[:8]) or "none"
        raise DataError(f"the samples have the label {unknown[0]!r}, which the real data does not know; it has {known}")
    table = torch.tensor([real.class_names.index(name) if name in real.class_names else -1 for name in names])
    return table[labels]
