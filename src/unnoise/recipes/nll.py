"""How likely data is under a model, sample by sample, in a file that a run which was stopped goes on from.

The first line of the file says what was evaluated and how; every other line is one sample:

{"unnoise": "0.1.0", "holds": "nll", "model": "3f2a...", "data": "9c41...", "settings": {"rtol": 1e-05, ...}}
{"index": 17, "nll": 132.7, "evaluations": 76, "half_width": 0.8}

With the bound, a line has its total, L_T ("bound_prior"), L_0 ("bound_decoder") and the terms between, L_t by t, as well.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.base import Dataset
from ..denoisers.base import Condition, Denoiser
from ..errors import BadOption, IncompatibleParts, RunFolderError
from ..evaluation.bound import variational_bound
from ..evaluation.intervals import mean_interval
from ..evaluation.likelihood import (
    MOST_EXACT,
    Moments,
    bits_per_dim,
    default_probes,
    dequantised,
    log_likelihood,
    log_volume,
)
from ..files import write_atomically
from ..model import Model
from ..options import Checked, option, plain
from ..process.base import scales
from ..process.tabulated import DiscreteSchedule
from ..randomness import permutations

MOST_IN_MOMENTS = 20_000
"""Samples that the prior's mean and covariance are taken over."""
MOST_CALLS = 20_000
"""Network calls of a batch after which the tolerance is said to be out of reach; some hundreds are usual."""
OWN = "own"
"""The label that asks for each sample's own."""


@dataclass(frozen=True)
class NLLSettings(Checked):
    """How likelihoods are worked out: what the numbers of a file depend on beside the model and the data."""

    label: str | None = option(
        None, help="a class, `own` for each sample's own, or none for the unconditional likelihood"
    )
    rtol: float = option(1e-4, help="largest error of a step, relative", low=1e-12, high=1.0)
    atol: float = option(
        1e-4, help="largest error of a step, in nats and in units of the encoded data", low=1e-12, high=1.0
    )
    probes: int | None = option(
        None, help="random directions of the divergence; 0 for the exact one", low=0, high=100_000
    )
    prior: Literal["data", "start"] = option(
        "data", help="at t = 1: the data's mean and covariance, noised, or the noise that samples start from"
    )
    bound: bool = option(False, help="the variational bound of the discrete chain too")
    levels: int | None = option(None, help="levels of the bound drawn for each sample; all by default", low=2)
    seed: int = option(0, help="of the choice of samples, their dequantisation, the probes and the bound", low=0)


class _Stop(Exception):
    """A stop was asked for."""


class _Watched(Denoiser):
    """A denoiser that tells of its calls, and lets a person stop between two of them."""

    def __init__(self, denoiser: Denoiser, called: Callable[[], None]) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.called = denoiser, denoiser.schedule, called

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """See `Denoiser.forward`."""
        self.called()
        return self.denoiser(x_t, t, cond)  # type: ignore[no-any-return]

    def with_variance(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> tuple[Tensor, Tensor | None]:
        """See `Denoiser.with_variance`."""
        self.called()
        return self.denoiser.with_variance(x_t, t, cond)


class Evaluation:
    """Likelihoods of a data set under a model, and the file that holds them.

    Args:
        model: The model.
        data: Samples of its kind.
        settings: How.
        out: The file; None keeps nothing. One that holds the same evaluation is gone on from.

    Raises:
        IncompatibleParts: The model has no density, or no chain for the bound.
        BadOption: The model knows no such label, or the data has none.
        RunFolderError: The file holds something else.
    """

    def __init__(self, model: Model, data: Dataset, settings: NLLSettings, out: Path | None = None) -> None:
        self.model, self.data, self.settings, self.out = model, data, settings, out
        self.size, self.fingerprint = math.prod(model.spec.shape), data.fingerprint()
        self.probes = default_probes(self.size) if settings.probes is None else settings.probes
        self._volume = log_volume(model.blueprint.codec, model.spec.shape)
        self._bin_width = self._check_bound() if settings.bound else None
        self._labels = self._requests()
        self.rows: dict[int, dict[str, Any]] = {}
        self._resume()

    @property
    def header(self) -> dict[str, Any]:
        """What the numbers depend on, as plain values."""
        from .. import __version__

        settings = {**plain(self.settings), "probes": self.probes, "t_start": self.t_start}
        return {
            "unnoise": __version__,
            "holds": "nll",
            "model": self.model.hash,
            "data": self.fingerprint,
            "settings": settings,
        }

    @property
    def t_start(self) -> float:
        """Where the score begins to stand still: below it the network has learned nothing."""
        return self.model.denoiser.schedule.t_min

    @cached_property
    def _prior(self) -> Moments | None:
        """The moments of the whole data set, in the space of the denoiser; None for the noise that samples start from."""
        if self.settings.prior == "start":
            return None
        encoded = self.model.blueprint.codec.encode(self.data.x[:MOST_IN_MOMENTS].double()).flatten(1).double()
        mean = encoded.mean(0)
        return Moments(mean, (encoded - mean).T @ (encoded - mean) / len(encoded))

    def _check_bound(self) -> float | None:
        schedule = self.model.denoiser.schedule
        if not isinstance(schedule, DiscreteSchedule):
            raise IncompatibleParts(
                f"the variational bound needs a chain of levels, and this model's process, {type(schedule).__name__}, has none: "
                "leave out --bound, or train on a discrete schedule such as linear or cosine"
            )
        if self.settings.levels is not None and self.settings.levels > schedule.num_steps:
            raise BadOption(f"levels: the chain has {schedule.num_steps}, got {self.settings.levels}")
        if self.model.spec.kind != "image":
            return None
        ends = self.model.blueprint.codec.encode(
            torch.tensor([0.0, 255.0]).reshape(2, 1, 1, 1).expand(2, *self.model.spec.shape)
        )
        if not torch.allclose(ends[0], torch.tensor(-1.0)) or not torch.allclose(ends[1], torch.tensor(1.0)):
            raise IncompatibleParts(
                "the bound of images needs a codec that makes [-1, 1] of their bytes: leave out --bound"
            )
        return 2 / 255

    def _requests(self) -> list[str] | None:
        """The label asked for of every sample of the data."""
        label = self.settings.label
        if label is None:
            return None
        if label != OWN:
            self.model.condition(label, 1)
            return [label] * len(self.data)
        names = self.data.spec.class_names
        if self.data.labels is None or not names:
            raise BadOption(f"label: the data has no labels of its own: ask for one by name instead of {OWN!r}")
        for name in names:
            self.model.condition(name, 1)
        return [names[int(i)] for i in self.data.labels]

    def _resume(self) -> None:
        if self.out is None or not self.out.exists():
            return
        try:
            lines = [_parsed(line) for line in self.out.read_text(encoding="utf-8").splitlines()]
        except (UnicodeDecodeError, IsADirectoryError):
            lines = []
        mine = self.header
        if not lines or (lines[0] or {}).get("holds") != "nll":
            raise RunFolderError(f"{self.out} exists and holds no likelihoods: use another --out")
        found = lines[0] or {}
        old, new = {**found, **found.get("settings", {})}, {**mine, **mine["settings"]}
        changed = [key for key in new if key not in ("unnoise", "settings") and old.get(key) != new[key]]
        needed = {"index", "nll", *(("bound_levels",) if self.settings.bound else ())}
        kept = {line["index"]: line for line in lines[1:] if line is not None and needed <= line.keys()}
        if changed and kept:
            what = ", ".join(f"{key} {_short(old.get(key))}, now {_short(new[key])}" for key in changed[:4])
            raise RunFolderError(
                f"{self.out} holds other likelihoods ({what}): use another --out, or what it was begun with"
            )
        self.rows = {} if changed else kept

    def wanted(self, n: int) -> list[int]:
        """Which n samples are evaluated: a choice that only grows with n."""
        if n >= len(self.data):
            return list(range(len(self.data)))
        return [int(i) for i in permutations(self.settings.seed, len(self.data), 0, 1)[0][:n]]

    def run(
        self,
        n: int,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Evaluates what is missing of n samples, batch by batch.

        Args:
            n: How many, all where there are fewer.
            batch_size: Samples at a time; chosen by their size by default.
            progress: Told how many samples are done, and how many calls the batch has made.
            stop: Asked before every network call; when true, the batch is given up and what is done stays.

        Returns:
            Whether all are done.

        Raises:
            ToleranceNotMet: A batch was not as accurate as asked; the batches before it stay.
            OSError: The file cannot be written.
        """
        wanted = self.wanted(n)
        missing = [i for i in wanted if i not in self.rows]
        size = self._batch_size() if batch_size is None else batch_size
        if size < 1:
            raise BadOption(f"batch_size: must be at least 1, got {size}")
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            whole = [self.header, *self.rows.values()]  # without a line that was cut off
            write_atomically(self.out, "".join(json.dumps(line) + "\n" for line in whole).encode())
        calls = 0

        def called() -> None:
            nonlocal calls
            if stop():
                raise _Stop
            calls += 1
            if progress is not None:
                progress(len(wanted) - len(missing) + first, calls)

        for first in range(0, len(missing), size):
            calls = 0
            try:
                self._keep(self._batch(missing[first : first + size], _Watched(self.model.denoiser, called)))
            except _Stop:
                return False
        if progress is not None:
            progress(len(wanted), calls)
        return True

    def _batch_size(self) -> int:
        on_cpu = next(self.model.denoiser.parameters()).device.type == "cpu"
        return max(
            1, min(2 ** (14 if on_cpu else 18) // self.size, 1000 if self.size <= MOST_EXACT else 50 if on_cpu else 500)
        )

    def _keep(self, rows: Sequence[dict[str, Any]]) -> None:
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
        self.rows |= {row["index"]: row for row in rows}

    def _batch(self, indices: list[int], denoiser: Denoiser) -> list[dict[str, Any]]:
        settings, spec, codec = self.settings, self.model.spec, self.model.blueprint.codec
        device = next(self.model.denoiser.parameters()).device
        x = self.data.x[torch.tensor(indices)].to(device)
        cond = self.model.condition(None if self._labels is None else [self._labels[i] for i in indices], len(indices))
        if cond is not None:
            cond = {name: value.to(device) for name, value in cond.items()}
        inside = dequantised(x, settings.seed, indices) if spec.kind == "image" else x.double()
        found = log_likelihood(
            denoiser, codec.encode(inside), cond=cond, rtol=settings.rtol, atol=settings.atol, t_start=self.t_start,
            probes=self.probes, seed=settings.seed, indices=indices, prior=self._prior,
            max_calls=MOST_CALLS,
        )  # fmt: skip
        nlls, evaluations = -found.log_prob - self._volume, found.evaluations
        rows: list[dict[str, Any]] = [
            {"index": i, "nll": float(nll), "evaluations": int(each)}
            for i, nll, each in zip(indices, nlls, evaluations, strict=True)
        ]
        if self.probes > 1:
            for row, width in zip(rows, found.half_width, strict=True):
                row["half_width"] = float(width)
        if settings.bound:
            bound = variational_bound(
                denoiser, codec.encode(x), cond=cond, bin_width=self._bin_width, num_levels=settings.levels,
                seed=settings.seed, indices=indices,
            )  # fmt: skip
            shift = 0.0 if self._bin_width is not None else self._volume
            for row, total, prior, levels in zip(rows, bound.total, bound.prior, bound.levels, strict=True):
                row |= {"bound": float(total) - shift, "bound_prior": float(prior)}
                row |= {"bound_decoder": float(levels[0]) - shift}
                row["bound_levels"] = {str(t): float(f"{levels[t]:.7g}") for t in levels.nonzero()[:, 0].tolist() if t}
        return rows

    def summary(self, n: int) -> dict[str, Any]:
        """The means over the n samples, as plain values: nats, bits a number, their 95 % intervals, and how they were found."""
        rows = [self.rows[i] for i in self.wanted(n) if i in self.rows]
        schedule = self.model.denoiser.schedule
        values = {
            "n": len(rows),
            "of": len(self.data),
            "nll": self._mean(rows, "nll"),
            "unit": "nats a sample: a bound for whole numbers, by dequantisation" if self.model.spec.kind == "image" else
            "nats a sample, of the density in the units of the data",
            "divergence": f"{self.probes} probes a sample" if self.probes else "exact",
            "evaluations": sum(row["evaluations"] for row in rows) / max(len(rows), 1),
            "prior": "the data's mean and covariance, noised to t = 1" if self._prior is not None else
            f"N(0, {scales(schedule, 1.0)[1]:.6g}^2), where samples start",
            "model": self.model.hash,
            "data": self.fingerprint,
            "settings": self.header["settings"],
        }  # fmt: skip
        if self.settings.bound:
            between = [{"bound_steps": math.fsum(row["bound_levels"].values())} for row in rows]
            values |= {name: self._mean(rows, name) for name in ("bound", "bound_prior")}
            values |= {"bound_steps": self._mean(between, "bound_steps")}
            values |= {"bound_decoder": self._mean(rows, "bound_decoder"), "bound_levels": self._by_level(rows)}
        return values

    def _by_level(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """The mean of each L_t over the samples, in nats, from L_0 to L_T."""
        means = [0.0] * ((self.model.denoiser.schedule.num_steps or 0) + 1)
        for row in rows:
            for level, nats in {**row["bound_levels"], 0: row["bound_decoder"], -1: row["bound_prior"]}.items():
                means[int(level)] += nats / len(rows)
        return means

    def _mean(self, rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float | None] | None:
        if not rows:
            return None
        mean = mean_interval(torch.tensor([row[name] for row in rows], dtype=torch.float64))
        nats = {"nats": mean.value, "low": mean.low, "high": mean.high}
        bits = {"bits_per_dim": mean.value, "bits_low": mean.low, "bits_high": mean.high}
        values = nats | {key: bits_per_dim(value, self.size) for key, value in bits.items()}
        return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _short(value: Any) -> str:
    return str(value)[:12]
