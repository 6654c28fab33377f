"""A run judged while it is trained: numbers of its averaged model, the best model kept, and early signs that it learns by heart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...data.base import Dataset, Progress, Spec
from ...errors import BadOption, DataError
from ...evaluation.features.base import Extractor
from ...evaluation.memorisation import Memorisation
from ...evaluation.metrics.base import Estimate, metrics
from ...model import Model
from .clouds import Clouds
from .copying import copying
from .plan import EvaluationPlan, default_features
from .real import RealData
from .subject import ModelSubject, Request

NEAR_FLOOR = 0.05
"""A loss that is so little above the floor of its training data, as a share of the floor, is that of learning by heart."""
FEWEST = 10
"""Training samples among which copies can be told."""
RISEN = 0.02
"""A held-out loss that has risen by more than this share of its lowest value does not come from chance."""


@dataclass(frozen=True)
class Evaluated:
    """The averaged model was measured.

    Args:
        step: After so many updates.
        estimates: By metric.
        copies: Whether it copies training data; None where nobody asked, or nobody can tell.
        best: Whether it is the best model so far.
        warnings: Early signs of overfitting, one line each.
    """

    step: int
    estimates: Mapping[str, Estimate]
    copies: Memorisation | None
    best: bool
    warnings: tuple[str, ...]

    def line(self) -> dict[str, Any]:
        """What stands in the metrics of the run."""
        values: dict[str, Any] = {"step": self.step}
        for name, each in self.estimates.items():
            values |= {name: float(each.value), f"{name}_low": float(each.low), f"{name}_high": float(each.high)}
        if self.copies is not None:
            for space, found in self.copies.spaces.items():
                values |= {f"copies_{space}": found.copies.value, f"nearer_{space}": found.nearer.value}
        return values | {"best": self.best, "warnings": list(self.warnings)}


class Watcher:
    """Measures a run as it goes. All that it remembers is in `state`, so that a resumed run goes on the same.

    Args:
        plan: What is measured, and when.
        train: What is learned.
        held_out: What is not; may be empty.
        batch_size: Samples an update.
        seed: Of the noise.
    """

    NOTHING: ClassVar[Mapping[str, Any]] = {"best": None, "lowest": None, "loss": None, "floor": None}
    """What is remembered before the first step."""

    def __init__(self, plan: EvaluationPlan, train: Dataset, held_out: Dataset, batch_size: int, seed: int) -> None:
        self.plan, self.batch_size, self.seed = plan, batch_size, seed
        self.real = RealData(train, train, held_out if len(held_out) else None)
        names = plan.metrics or (("energy",) if train.spec.kind == "points" else ("fid", "kid"))
        self.metrics = {name: metrics.build(name) for name in names}
        self.decides = plan.best_by or names[0]
        if self.decides not in self.metrics:
            raise BadOption(f"evaluation.best_by: {self.decides} is not measured; measured are {', '.join(names)}")
        unlabelled = [name for name, each in self.metrics.items() if each.needs_labels and train.labels is None]
        if unlabelled:
            raise BadOption(f"evaluation.metrics: {unlabelled[0]} needs labels, and the data has none")
        self.state: dict[str, Any] = dict(self.NOTHING)
        self._extractor: Extractor | None = None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint remembers."""
        self.state |= dict(state)

    def due(self, step: int, last: bool) -> bool:
        """Whether the model is measured after an update."""
        every = self.plan.every
        if not every:
            return False
        return last or step * self.batch_size // every > (step - 1) * self.batch_size // every

    def prepare(self, progress: Progress | None = None) -> None:
        """Brings the feature extractor, which may have to be trained.

        Raises:
            DataError: It cannot look at such data, or a file that it needs is missing.
        """
        if self.plan.every and self._extractor is None:
            source = self.plan.features or default_features(self.real.train.spec)
            self._extractor = source.prepare(self.real.train, progress)

    def saw(self, loss: float, floor: float | None) -> None:
        """Takes note of a validation loss, and of the Bayes floor of the training data where it is known."""
        lowest = self.state["lowest"]
        self.state |= {"loss": loss, "floor": floor, "lowest": loss if lowest is None else min(lowest, loss)}

    def measure(self, model: Model, step: int) -> Evaluated:
        """Makes samples and measures them.

        Args:
            model: As it stands.
            step: After so many updates.

        Raises:
            DataError: A metric cannot be worked out of so few samples.
        """
        self.prepare()
        extractor, plan = self._extractor, self.plan
        assert extractor is not None
        subject = ModelSubject(model, Request(steps=plan.steps, seed=self.seed), self.real.train, self.real.held_out)
        made = subject.samples(0, plan.n)
        seen = extractor(made)
        clouds = Clouds(made, self.real, seen, extractor, subject.labels(plan.n), self.seed)
        found = {name: each.measure(*clouds.pair(each.space), seed=self.seed) for name, each in self.metrics.items()}
        copied = None
        if plan.memorisation and len(self.real.train) > FEWEST:
            copied = copying(made, self.real, extractor, seen, self.seed)
        return Evaluated(step, found, copied, self._is_best(found[self.decides], step), self._warnings(copied))

    def _is_best(self, estimate: Estimate, step: int) -> bool:
        sign = 1 if metrics[self.decides].better == "lower" else -1
        best = self.state["best"]
        if best is not None and sign * estimate.value >= sign * best["value"]:
            return False
        self.state["best"] = {"metric": self.decides, "value": float(estimate.value), "step": step}
        return True

    def _warnings(self, copied: Memorisation | None) -> tuple[str, ...]:
        loss, lowest, floor = (self.state[name] for name in ("loss", "lowest", "floor"))
        told = []
        if copied is not None and copied.verdict == "copies":
            told.append(f"the model copies its training data. {copied.sentence}")
        if loss is None:
            return tuple(told)
        if self.real.held_out is not None:
            if loss > lowest * (1 + RISEN):
                told.append(f"the loss of held-out data has risen from {lowest:.4f} to {loss:.4f}: it learns by heart")
        elif floor and loss < floor * (1 + NEAR_FLOOR):
            told.append(
                f"the loss, {loss:.4f}, is within {NEAR_FLOOR:.0%} of {floor:.4f}, which only a model has that knows "
                f"the {len(self.real.train):,} training samples by heart: more training teaches these, and not what they stand for"
            )
        return tuple(told)


def check_plan(plan: EvaluationPlan, spec: Spec) -> None:
    """Refuses a plan that cannot be carried out, before anything is trained.

    Raises:
        DataError: The features do not suit the data.
    """
    source = plan.features or default_features(spec)
    if plan.every and not source.suits(spec):
        shape = tuple(spec.shape)
        raise DataError(
            f"evaluation.features: {source.registered_name} cannot look at {spec.kind} samples of shape {shape}"
        )
