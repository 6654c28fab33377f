"""Does a model copy its training data? Two criteria, each held against data that the model cannot have copied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import BadOption, DataError, ShapeError
from ._neighbourhood import AROUND, Around, Search, distinct, sameness, some
from .adherence import Share, share
from .features.base import Progress
from .metrics.base import Cloud

Verdict = Literal["copies", "no sign of copying", "cannot tell"]

_COPY = 1 / 3
_NEAREST = 0.05  # of the held-out samples, for the second criterion
_FEW = 1000  # training samples that are compared with the others at least, where no data is held out
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Pair:
    """A sample and what it is nearest to.

    Args:
        sample: Which of the made samples.
        train: Which of the training samples.
        distance: Between the two.
        ratio: Of that distance to the one of `second`, in [0, 1]; a copy where it is below a third.
        second: The nearest training sample that is no duplicate of `train`.
        second_distance: From the sample to it.
        flipped: Whether the sample is nearest to the mirror image.
    """

    sample: int
    train: int
    distance: float
    ratio: float
    second: int
    second_distance: float
    flipped: bool = False


class Excess(NamedTuple):
    """A difference of two shares, with its 95 % interval.

    Args:
        value: In [-1, 1].
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Copying:
    """How near samples lie to the training data in one space, and how near data lies that was not copied.

    Args:
        copies: The share of samples that are copies by the first criterion.
        baseline: The same share of data that was not copied.
        against: What that data is: "held-out data" or "training data, each against the others".
        nearer: The share of samples that lie nearer to the training data than `threshold`.
        expected: The share that would if nothing were copied, about 5 %, as sure as the baseline's number allows.
        threshold: The distance that the nearest 5 % of the baseline lie within.
        pairs: The samples most like a training sample, the smallest ratio first.
        distances: From each sample to the training data, shape (N,), float64.
        indices: Of the training sample at that distance, shape (N,), int64.
        ratios: Of that distance to the second one's, shape (N,), float64.
        baseline_distances: From each baseline sample to the training data, shape (H,), float64.
        baseline_ratios: Shape (H,), float64.
        least: The share of copies that must be excluded before copying is denied.
        notes: What a reader must know to believe it, one line each.
    """

    copies: Share
    baseline: Share
    against: str
    nearer: Share
    expected: Share
    threshold: float
    pairs: tuple[Pair, ...]
    distances: Tensor
    indices: Tensor
    ratios: Tensor
    baseline_distances: Tensor
    baseline_ratios: Tensor
    least: float
    notes: tuple[str, ...] = ()

    @property
    def excess(self) -> Excess:
        """How many more copies there are among the samples than in the baseline.

        References:
            Interval estimation for the difference between independent proportions (Newcombe, 1998), Method 10,
            https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I
        """
        a, b = self.copies, self.baseline
        value = a.value - b.value
        below = math.hypot(a.value - a.low, b.high - b.value)
        above = math.hypot(a.high - a.value, b.value - b.low)
        return Excess(value, value - below, value + above)

    @property
    def is_nearer(self) -> bool:
        """Whether more samples lie near the training data than chance explains: an early sign, and no proof."""
        return self.nearer.low > self.expected.high

    @property
    def verdict(self) -> Verdict:
        """Copies only where the two intervals lie apart; cannot tell where `least` more copies would not have shown."""
        if self.copies.low > self.baseline.high:
            return "copies"
        return "cannot tell" if self.excess.high > self.least else "no sign of copying"

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        found = (
            f"{_percent(self.copies)} of {self.copies.trials:,} samples lie three times nearer to one training sample than to "
            f"any other, and of {self.against} {_percent(self.baseline)} of {self.baseline.trials:,}"
        )
        if self.verdict == "cannot tell":
            found += f"; with so few, {100 * self.excess.high:.2g} % could be copies without showing"
        if self.is_nearer:
            found += (
                f"; {_percent(self.nearer)} lie nearer to the training data than the nearest "
                f"{100 * self.expected.value:.2g} % of {self.against} do"
            )
            if self.verdict != "copies":
                found += ", a first sign of copying, or of samples smoother than the data"
        return f"{self.verdict.capitalize()}: {found}."

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single distances, of which the quantiles stand for all, in types that JSON knows."""
        quantiles = torch.tensor(_QUANTILES, dtype=torch.float64)
        values = {"made": self.distances, "baseline": self.baseline_distances}
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "copies": asdict(self.copies),
            "baseline": asdict(self.baseline),
            "against": self.against,
            "excess": self.excess._asdict(),
            "nearer": asdict(self.nearer),
            "expected": asdict(self.expected),
            "threshold": self.threshold,
            "distances": {
                name: dict(zip(map(str, _QUANTILES), d.quantile(quantiles).tolist(), strict=True))
                for name, d in values.items()
            },
            "pairs": [asdict(pair) for pair in self.pairs],
            "least": self.least,
            "notes": list(self.notes),
        }


def _percent(part: Share) -> str:
    return f"{100 * part.value:.3g} % ({100 * part.low:.3g} to {100 * part.high:.3g} %)"


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Whether a model copies, in every space that was looked at.

    Args:
        spaces: What was found, by the name of the space.
    """

    spaces: Mapping[str, Copying]

    @property
    def verdict(self) -> Verdict:
        """Copies where one space shows it; no sign of it only where every space denies it."""
        verdicts = {found.verdict for found in self.spaces.values()}
        order: tuple[Verdict, ...] = ("copies", "cannot tell")
        return next((verdict for verdict in order if verdict in verdicts), "no sign of copying")

    @property
    def sentence(self) -> str:
        """The verdict of each space, parted by a blank."""
        return " ".join(f"In {name}: {_uncapital(found.sentence)}" for name, found in self.spaces.items())

    def as_dict(self) -> dict[str, Any]:
        """In types that JSON knows."""
        spaces = {name: found.as_dict() for name, found in self.spaces.items()}
        return {"verdict": self.verdict, "sentence": self.sentence, "spaces": spaces}


def _uncapital(text: str) -> str:
    return text[:1].lower() + text[1:]


@dataclass(frozen=True, eq=False)
class Compared:
    """What is compared in one space.

    Args:
        made: Samples of the model, shape (N, ...), or a cloud of their features.
        train: What it was trained on, shape (M, ...), or a cloud.
        held_out: Data that it was not trained on, shape (H, ...), or a cloud, or None.
        flips: Whether a mirror image counts as the same: for images, whose last axis is across, and a model that was trained
            with flips.
    """

    made: Tensor | Cloud
    train: Tensor | Cloud
    held_out: Tensor | Cloud | None = None
    flips: bool = False


def memorisation(
    spaces: Mapping[str, Compared],
    *,
    least: float = 0.05,
    closest: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Memorisation:
    """Whether a model copies its training data, in pixels, in features, or wherever else distances mean something.

    Args:
        spaces: What to compare, by the name of the space; the same samples in each.
        least: See `copying`.
        closest: See `copying`.
        seed: See `copying`.
        progress: Told of the search.

    Raises:
        BadOption: There is no space.
        ShapeError: See `copying`.
        DataError: See `copying`.
    """
    if not spaces:
        raise BadOption("spaces: expected at least one space to compare in, got none")
    return Memorisation(
        {
            name: copying(
                c.made, c.train, c.held_out, flips=c.flips, least=least, closest=closest, seed=seed, progress=progress
            )
            for name, c in spaces.items()
        }
    )


def copying(
    made: Tensor | Cloud,
    train: Tensor | Cloud,
    held_out: Tensor | Cloud | None = None,
    *,
    flips: bool = False,
    least: float = 0.05,
    closest: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Copying:
    r"""Whether samples are copies of training data, in one space.

    A sample is a copy where the distance to the nearest training sample is below a third of the distance to the second
    nearest. Training samples that are duplicates of the nearest one do not count as second: exact ones, in any number, and
    near ones, up to four of a sample, which lie within a tenth of the distance to the tenth neighbour, or less in few
    dimensions, where so much nearness is no rare chance.

    The second criterion is more sensitive and proves less: samples that lie nearer to the training data than the nearest
    5 % of the baseline do. Both are shares of distances to distances, and so the same in any unit.

    Args:
        made: See `Compared`.
        train: See `Compared`.
        held_out: See `Compared`; without it, training samples are compared with the other ones, their duplicates left out.
        flips: See `Compared`.
        least: The share of copies that must be excluded before copying is denied, in (0, 1).
        closest: How many pairs are kept.
        seed: Which training samples stand in for held-out data, where there are more of them than samples.
        progress: Told of the search.

    Raises:
        ShapeError: The samples have different shapes, or there are none, or they cannot be flipped.
        BadOption: `least` or `closest` is out of range.
        DataError: Some samples are not finite, or there are too few different training samples.

    References:
        Diffusion Probabilistic Models Generalize when They Fail to Memorize (Yoon et al., 2023), the third,
        https://openreview.net/forum?id=shciCbSk9h;
        On Memorization in Diffusion Models (Gu et al., 2023), https://arxiv.org/abs/2310.02664
    """
    if not 0 < least < 1 or closest < 0:
        raise BadOption(f"least: must be in (0, 1), and closest at least 0, got {least} and {closest}")
    made, train = _tensor(made), _tensor(train)
    held_out = None if held_out is None else _tensor(held_out)
    if flips and made.ndim < 3:
        raise ShapeError(f"flips: expected images of shape (N, ..., W), got {tuple(made.shape)}")
    kept = distinct(train, flips)
    known = train if len(kept) == len(train) else train[kept]
    most = len(known) - (held_out is None)
    if most < 2:
        raise DataError(f"copies can be told from 3 different training samples on, got {len(known)}")
    search = Search(known, min(AROUND, most), flips, progress)
    if held_out is None:
        own = some(len(known), max(len(made), _FEW), seed)
        around, against = search("baseline", known[own], own), "training data, each against the others"
    else:
        around, against = search("baseline", held_out, None), "held-out data"
    part = sameness(around.distances)
    base = search.judge(around, part, leave_out=held_out is None)
    found = search.judge(search("samples", made, None), part, leave_out=False)
    ratios, distances = found.ratios, found.distances
    threshold, expected = _nearest_part(base.distances)
    order = sorted(range(len(ratios)), key=lambda i: (float(ratios[i]), float(distances[i])))[:closest]
    return Copying(
        copies=_below(ratios, _COPY),
        baseline=_below(base.ratios, _COPY),
        against=against,
        nearer=_below(distances, threshold),
        expected=expected,
        threshold=threshold,
        pairs=tuple(_pair(i, found, kept) for i in order),
        distances=distances,
        indices=kept[found.first],
        ratios=ratios,
        baseline_distances=base.distances,
        baseline_ratios=base.ratios,
        least=least,
        notes=_notes(len(train) - len(kept), 0 if held_out is None else int((around.distances[:, 0] == 0).sum())),
    )


def _nearest_part(distances: Tensor) -> tuple[float, Share]:
    """The distance that the nearest 5 % lie within, and the share of more such distances that is below it."""
    num = len(distances)
    rank = min(num, max(1, round(_NEAREST * (num + 1))))
    # One more number like these is equally likely to be the smallest of all, the second smallest, and so on.
    return float(distances.sort().values[rank - 1]), share(rank, num + 1)


def _notes(duplicates: int, leaked: int) -> tuple[str, ...]:
    told = []
    if duplicates:
        told.append(f"{duplicates:,} exact duplicates in the training data count once")
    if leaked:
        told.append(f"{leaked:,} held-out samples are in the training data as well, and hide as many copies")
    return tuple(told)


def _tensor(x: Tensor | Cloud) -> Tensor:
    return (x.features if isinstance(x, Cloud) else x).detach()


def _below(values: Tensor, bound: float) -> Share:
    return share(int((values < bound).sum()), len(values))


def _pair(i: int, found: Around, kept: Tensor) -> Pair:
    return Pair(
        sample=i,
        train=int(kept[found.first[i]]),
        distance=float(found.distances[i]),
        ratio=float(found.ratios[i]),
        second=int(kept[found.second[i]]),
        second_distance=float(found.second_distances[i]),
        flipped=bool(found.flipped[i]),
    )
