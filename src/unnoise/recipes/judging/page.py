"""The page of an evaluation: what was made, how good it is, how sure that is, and whether it was copied."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...errors import MissingExtra
from ...evaluation.metrics.base import Estimate, metrics
from ...pictures.grid import image_grid
from ...pictures.page import Page, Picture
from ...pictures.points import scatter
from ..gallery import limits_of
from . import words
from .copying import brief, closest_pairs, distances_picture
from .evaluation import Result
from .real import RealData
from .subject import DATA

HALF, WIDE = 430, 900  # CSS pixels
SHOWN = 64


def write_page(result: Result, folder: Path, command: str = "") -> Path:
    """Writes `index.html`, which needs nothing but itself.

    Args:
        result: What was found.
        folder: Where.
        command: The command that a person gave.
    """
    subject = result.values["subject"]
    page = Page(f"How good is {subject['name']}?", _subtitle(result))
    _short(page, result)
    _look(page, result)
    _numbers(page, result)
    _bias(page, result.estimates.get("fid"))
    _classes(page, result)
    _copies(page, result)
    _provenance(page, result, command)
    return page.save(folder / "index.html")


def _subtitle(result: Result) -> str:
    real, subject = result.values["real"], result.values["subject"]
    return f"{subject['n']:,} samples beside {real['n']:,} real ones, with 95 % intervals."


def _short(page: Page, result: Result) -> None:
    lines = [_sentence(name, each, result.baseline.get(name)) for name, each in list(result.estimates.items())[:3]]
    if "accuracy" in result.estimates:
        lines.append(_sentence("accuracy", result.estimates["accuracy"], result.baseline.get("accuracy")))
    if result.memorisation is not None:
        lines.append(f"**Copies:** {brief(result.memorisation)}.")
    warnings = [note for each in result.estimates.values() for note in each.notes] + list(result.notes)
    page.heading("In short")
    page.text("\n".join(f"- {line}" for line in dict.fromkeys(lines)))
    if warnings:
        page.heading("What to keep in mind", 3)
        page.text("\n".join(f"- {line}" for line in dict.fromkeys(warnings)))


def _sentence(name: str, estimate: Estimate, real: Estimate | None) -> str:
    better = metrics[name].better
    said = f"**{words.title(name)} {words.number(estimate.value)}** ({words.interval(estimate)}; {better} is better)"
    if real is None:
        return said + "."
    return f"{said}; real data that was set aside has {words.number(real.value)}."


def _look(page: Page, result: Result) -> None:
    page.heading("Made, and real")
    made, real = picture_of(result.made, result.real), picture_of(result.real.reference.x, result.real, real=True)
    if made is None or real is None:
        page.text("Samples of this shape have no picture.")
        return
    page.columns(
        [
            Picture(made, "Made: the first samples, not chosen.", "Made samples", HALF),
            Picture(real, "Real: drawn at random.", "Real samples", HALF),
        ]
    )


def picture_of(x: Tensor, data: RealData, real: bool = False, most: int = SHOWN) -> Image.Image | None:
    """Some samples as one picture, the first of made ones and random real ones; None where they have none."""
    spec = data.reference.spec
    if spec.kind == "image":
        shown = min(most, len(x)) if max(spec.shape[-2:]) <= 64 else min(most // 4, len(x))
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:shown] if real else slice(shown)
        return image_grid(x[chosen], columns=max(1, round(shown**0.5)))
    if spec.kind == "points":
        return scatter(x[:2000].double(), HALF, limits_of(spec, data.reference.x))
    return None


def _numbers(page: Page, result: Result) -> None:
    page.heading("The numbers")
    table = words.rows(result.estimates, result.baseline)
    features = result.values["features"]
    seen = f"`{features.get('name', 'features')}` ({features['dim']} numbers a sample, resize: {features['resize']})"
    page.table(
        words.HEADERS,
        [[f"**{row[0]}**" if not row[0].startswith(" ") else row[0].strip(), *row[1:]] for row in table],
        f"Features: {seen}. *Real* is what real data that was set aside gets in the place of as many made samples: nobody "
        "can hope for better. An interval says what other samples, as many on both sides, would give in 95 of 100 cases.",
    )


def _bias(page: Page, fid: Estimate | None) -> None:
    curve = None if fid is None else fid.details.get("curve")
    if fid is None or not isinstance(curve, list):
        return
    page.heading("FID, were there more samples", 3)
    limit = float(str(fid.details["fid_infinity"]))
    page.text(
        f"""
        FID is too high where there are few samples, by about a constant divided by their number. With {fid.num_made:,} it is
        {words.number(fid.value)}; a line through the values of smaller parts leads to **{words.number(limit)}** for endlessly
        many. Compare FIDs of equal numbers of samples only, or compare these limits.
        """
    )
    try:
        from ...pictures.intervals import extrapolation

        low, high = (float(str(fid.details[f"fid_infinity_{end}"])) for end in ("low", "high"))
        page.picture(extrapolation(curve, limit, (low, high), name="FID"), "FID against 1/N.", "FID against 1/N", HALF)
    except (MissingExtra, ImportError):
        pass


def _classes(page: Page, result: Result) -> None:
    accuracy = result.estimates.get("accuracy")
    classes = None if accuracy is None else accuracy.details.get("classes")
    if accuracy is None or not isinstance(classes, Mapping):
        return
    page.heading("Does it show what was asked for?", 3)
    names = result.real.reference.spec.class_names
    table = [
        (names[int(label)], f"{each['value']:.1%}", f"{each['low']:.1%} to {each['high']:.1%}", f"{each['n']:,}")
        for label, each in classes.items()
    ]
    known = accuracy.details.get("real")
    told = f" It recognises {known:.1%} of real samples." if isinstance(known, float) else ""
    page.table(
        ("label", "recognised", "95 % interval", "samples"),
        table,
        f"By a classifier in the features, which knows nothing of the model.{told}",
    )


def _copies(page: Page, result: Result) -> None:
    found = result.memorisation
    if found is None:
        return
    page.heading("Did it copy?")
    page.text("\n".join(f"- In {name}: {each.sentence}" for name, each in found.spaces.items()))
    pairs = closest_pairs(found, result.made, result.real.train)
    if pairs is not None:
        page.picture(
            pairs, "The samples that lie nearest to training data, each with its neighbour.", "Closest pairs", WIDE
        )
    try:
        drawn = distances_picture(found)
    except MissingExtra:
        return
    against = next(iter(found.spaces.values())).against
    caption = (
        f"How near samples come to the training data, and for comparison {against}. A heap of samples at the left, where the "
        "line is flat, are copies."
    )
    page.picture(drawn, caption, "Distances to the nearest training sample", WIDE)


def _provenance(page: Page, result: Result, command: str) -> None:
    page.heading("How this was made")
    values = result.values
    subject, features = values["subject"], values["features"]
    asked = subject.get("label")
    rows: list[tuple[str, str]] = [("samples", f"{subject['n']:,} of `{subject.get('model') or subject.get('files')}`")]
    if "sampler" in subject:
        rows += [
            ("sampler", f"`{_flat(subject['sampler'])}`, {subject['steps']} steps, grid `{_flat(subject['grid'])}`"),
            ("guidance", f"`{_flat(subject['guidance'])}`"),
            ("labels", "as often as in the real data" if asked == DATA else str(asked or "none")),
            ("seed", str(subject["seed"])),
        ]
    rows += [
        ("hash of the model" if "sampler" in subject else "hash of the samples", f"`{subject['hash']}`"),
        ("hash of the real data", f"`{values['real']['hash']}`, {values['real']['n']:,} samples"),
        *(
            [("hash of the training data", f"`{known['hash']}`, {known['n']:,} samples")]
            if (known := values["training data"])
            else []
        ),
        ("features", f"`{features['hash']}`"),
        ("resize", features["resize"]),
        *(
            (f"features: {key}", _flat(value))
            for key, value in features.items()
            if key not in ("hash", "dim", "resize")
        ),
        ("unnoise", values["unnoise"]),
    ]
    page.table(("", ""), rows)
    if command:
        page.text("The same command goes on with what stands here, or works it out again elsewhere:")
        page.code(command)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_flat(each)}" if key != "name" else str(each) for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
