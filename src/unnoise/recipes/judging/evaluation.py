"""An evaluation in its folder: samples are made and looked at block by block, then measured.

digits/evaluation/dpmpp_2m-20-g2-3f2a9c/
├── settings.json   what is judged, and how it was made
├── samples/        what was made, in blocks; the same command goes on with them
├── features/       what an extractor saw in them
├── numbers.json    every number that was worked out, so that it need not be again
├── result.json     the newest result, whole
└── index.html      the same as a page
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.base import Progress
from ...errors import BadOption, DataError, MissingExtra, RunFolderError
from ...evaluation.features.base import Extractor
from ...evaluation.memorisation import Memorisation
from ...evaluation.metrics.base import Cloud, Estimate, Metric, metrics
from ...files import write_atomically
from ..places.base import Place
from .blocks import Block, BlockFolder, block_size
from .clouds import Clouds
from .copying import copying
from .numbers import Numbers, Told
from .plan import EvaluationSettings, default_features, default_metrics
from .real import RealData
from .subject import ModelSubject, Subject


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Args:
        values: Everything, as plain values that JSON can hold.
        estimates: The numbers, by metric.
        baseline: The same numbers of real data that the model never saw, where there is any: what can be hoped for.
        memorisation: Whether training data was copied; None where nobody asked.
        made: The samples, shape (n, *shape).
        real: What they were compared with.
    """

    values: Mapping[str, Any]
    estimates: Mapping[str, Estimate]
    baseline: Mapping[str, Estimate]
    memorisation: Memorisation | None
    made: Tensor
    real: RealData
    notes: tuple[str, ...] = field(default=())


class Evaluation:
    """A subject, judged beside real data.

    Args:
        subject: What is judged.
        real: What it is judged by.
        settings: What is measured.
        folder: Where all of it is kept; one that holds the same samples is gone on from.

    Raises:
        RunFolderError: The folder holds something else.
        BadOption: A metric needs what is not there.
    """

    def __init__(self, subject: Subject, real: RealData, settings: EvaluationSettings, folder: Path) -> None:
        self.subject, self.real, self.settings, self.folder = subject, real, settings, folder
        self.hash = real.reference.fingerprint()
        self.labelled = subject.labels(1) is not None and real.reference.labels is not None
        names = settings.metrics or default_metrics(subject.spec, self.labelled)
        self.metrics: dict[str, Metric] = {name: metrics.build(name) for name in dict.fromkeys(names)}
        for name, metric in self.metrics.items():
            if metric.needs_labels and not self.labelled:
                raise BadOption(
                    f"metrics: {name} needs samples that were asked for by a label that the real data knows"
                )
        self.size = block_size(subject.spec.shape)
        self.made = BlockFolder(folder / "samples", self.size)
        self._claim()

    def _claim(self) -> None:
        file = self.folder / "settings.json"
        mine = {"holds": "evaluation", "subject": self.subject.describe()}
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))["subject"]
            except (ValueError, KeyError, TypeError, OSError):
                raise RunFolderError(f"{file} is damaged: use another --out, or remove the folder") from None
            wanted = json.loads(json.dumps(mine["subject"]))
            changed = [key for key in wanted if key != "model" and found.get(key) != wanted[key]]
            if changed:
                raise RunFolderError(
                    f"{self.folder} holds another evaluation (it differs in {', '.join(changed[:4])}): use another --out"
                )
        elif self.folder.is_dir() and any(not each.name.startswith(".") for each in self.folder.iterdir()):
            raise RunFolderError(f"{self.folder} exists and holds no evaluation: use another --out")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, (json.dumps(mine, indent=1) + "\n").encode())

    def prepare(self, progress: Progress | None = None) -> Extractor:
        """The feature extractor, trained on the real data where it is one that is.

        Raises:
            DataError: It cannot look at such data, or a file that it needs is missing.
        """
        source = default_features(self.subject.spec) if self.settings.features is None else self.settings.features
        if not source.suits(self.subject.spec):
            kind, shape = self.subject.spec.kind, tuple(self.subject.spec.shape)
            raise DataError(
                f"features {source.registered_name!r} cannot look at {kind} samples of shape {shape}: take `own`"
            )
        return source.prepare(self.real.reference, progress)

    def make_at(
        self,
        place: Place,
        n: int,
        extractor: Extractor,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Has the samples of a model that are missing made at a place, and looked at there; `make` does what then remains.

        Args:
            place: Where.
            n: How many samples.
            extractor: As `prepare` gives it.
            progress: Told how many samples there are.
            stop: Asked now and then.

        Returns:
            Whether all are there.

        Raises:
            BadOption: The subject is no model.
            WorkersLost: Workers do not come up, or die over and over; what is done stays.
            OSError: The disk is full, or may not be written to.
        """
        if not isinstance(self.subject, ModelSubject):
            raise BadOption(f"on: {self.subject.name} holds samples and no model: there is nothing to make elsewhere")
        seen = self.features(extractor)
        parts = [range(block.first, block.first + block.count) for block in self._missing(n)]
        before = n - sum(map(len, parts))

        def keep(part: range, found: tuple[Tensor, Tensor]) -> None:
            block = Block(part.start, len(part))
            seen.write(block, found[1])
            self.made.write(block, found[0])

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress("samples", before + done, n)

        return place.run(self.subject.job(n, extractor), parts, keep, tell, stop)

    def make(
        self,
        n: int,
        extractor: Extractor,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
        part: tuple[int, int] = (0, 1),
    ) -> bool:
        """Makes the samples that are missing, and their features.

        Args:
            n: How many samples.
            extractor: As `prepare` gives it.
            progress: Told how many samples there are.
            stop: Asked between blocks.
            part: (k, of): makes every of-th block from the k-th on; others make the rest.

        Returns:
            Whether all of this part are there.

        Raises:
            OSError: The disk is full, or may not be written to.
        """
        seen = self.features(extractor)
        todo = sorted({*self._missing(n), *seen.missing(n)}, key=lambda block: block.first)
        done = n - sum(block.count for block in todo)
        for block in todo:
            if block.first // self.size % part[1] != part[0]:  # by its place, so that no two parts ever differ over it
                continue
            if stop():
                return False

            def tell(step: int, steps: int, at: int = done, count: int = block.count) -> None:
                if progress is not None:
                    progress("samples", at + count * step // max(steps, 1), n)

            x = self._samples(block.first, block.count, tell)
            if seen.read(block) is None:
                seen.write(block, extractor(x))
            done += block.count
            tell(1, 1, at=done - block.count)
        return True

    def _missing(self, n: int) -> list[Block]:
        return [] if self.subject.most is not None else self.made.missing(n)

    def _samples(self, first: int, count: int, tell: Callable[[int, int], None]) -> Tensor:
        """A block: read where it stands, else made and kept."""
        if self.subject.most is not None:
            return self.subject.samples(first, count)
        found = self.made.read(Block(first, count))
        if found is None:
            found = self.subject.samples(first, count, tell)
            self.made.write(Block(first, count), found)
        return found

    def features(self, extractor: Extractor) -> BlockFolder:
        """Where the features of what was made stand."""
        return BlockFolder(self.folder / "features" / extractor.hash[:16], self.size)

    def measure(self, n: int, extractor: Extractor, progress: Progress | None = None) -> Result:
        """Works out every number of the first n samples.

        Args:
            n: How many samples; all must have been made.
            extractor: As `prepare` gives it.
            progress: Told which metric is worked out.

        Raises:
            RunFolderError: Some samples are missing.
            DataError: A metric cannot be worked out of so few samples.
        """
        made = self.subject.samples(0, n) if self.subject.most is not None else self.made.all(n)
        labels = self.subject.labels(n) if self.labelled else None
        seen = self.features(extractor).all(n)
        clouds = Clouds(made, self.real, seen, extractor, labels, self.settings.seed, progress)
        notes = [*self.real.notes, *self.subject.notes]
        told = Told(progress, len(self.metrics) * (1 + self.settings.baseline) + self.settings.memorisation)
        estimates = self._estimates(n, extractor, clouds.pair, "made", notes, told)
        baseline = self._estimates(n, extractor, clouds.baseline, "real", [], told) if self.settings.baseline else {}
        both = [(each, estimates[name]) for name, each in baseline.items() if name in estimates]
        fewer = [real for real, ours in both if real.num_made < ours.num_made]
        if fewer:
            notes.append(
                f"the column `real` compares only {fewer[0].num_made:,} real samples with {fewer[0].num_real:,} others, as there "
                "are no more: what depends on the number of samples, such as FID, is worse there"
            )
        copied = None
        if self.settings.memorisation:
            told()
            try:
                if self.real.unknown:
                    raise DataError(self.real.unknown)
                copied = copying(made, self.real, extractor, seen, self.settings.seed, progress)
            except DataError as error:
                notes.append(f"copies were not looked for: {error}")
        told.end()
        values = self._values(n, extractor, estimates, baseline, copied, notes)
        write_atomically(self.folder / "result.json", (json.dumps(values, indent=1) + "\n").encode())
        return Result(values, estimates, baseline, copied, made, self.real, tuple(notes))

    def _estimates(
        self,
        n: int,
        extractor: Extractor,
        clouds: Callable[[str], tuple[Cloud, Cloud]],
        whose: str,
        notes: list[str],
        told: Told,
    ) -> dict[str, Estimate]:
        """Every metric of a pair of clouds; what cannot be worked out and was not asked for by name is noted and left out."""
        numbers = Numbers(self.folder / "numbers.json")
        held_out = None if self.real.held_out is None else self.real.held_out.fingerprint()
        found: dict[str, Estimate] = {}
        for name, metric in self.metrics.items():
            told()
            depends = [metrics.describe(metric), whose, n, extractor.hash, self.hash, self.settings.seed]
            key = json.dumps(depends if whose == "made" else [*depends, held_out])
            estimate = numbers.get(key)
            if estimate is None:
                try:
                    estimate = metric.measure(*clouds(metric.space), seed=self.settings.seed)
                except (DataError, MissingExtra) as error:
                    if self.settings.metrics and whose == "made":
                        raise
                    notes.append(f"{name} left out: {error}")
                    continue
                numbers.keep(key, estimate)
            found[name] = estimate
        return found

    def _values(
        self,
        n: int,
        extractor: Extractor,
        estimates: Mapping[str, Estimate],
        baseline: Mapping[str, Estimate],
        copied: Memorisation | None,
        notes: list[str],
    ) -> dict[str, Any]:
        from ... import __version__

        reference, train, held_out = self.real.reference, self.real.train, self.real.held_out
        about = {"hash": extractor.hash, "dim": extractor.dim, "resize": extractor.resize, **extractor.about}
        values: dict[str, Any] = {
            "unnoise": __version__,
            "holds": "evaluation",
            "subject": {"name": self.subject.name, **self.subject.describe(), "n": n},
            "real": {"hash": self.hash, "n": len(reference)},
            "training data": None if self.real.unknown else {"hash": train.fingerprint(), "n": len(train)},
            "held out": None if held_out is None else {"n": len(held_out)},
            "features": about,
            "seed": self.settings.seed,
            "metrics": {name: _plain(self.metrics[name], each) for name, each in estimates.items()},
            "real data measured the same way": {
                name: _plain(self.metrics[name], each) for name, each in baseline.items()
            },
            "memorisation": None if copied is None else copied.as_dict(),
            "notes": notes,
        }
        return values


def _plain(metric: Metric, estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "notes": list(estimate.notes), "better": metric.better, "unit": metric.unit}
