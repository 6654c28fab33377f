"""What is measured, and when: options, and what suits which data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...data.base import Spec
from ...errors import BadOption
from ...evaluation.features.base import FeatureSource, extractors
from ...evaluation.metrics.base import metrics
from ...options import Checked, option
from ...registry import Registry

IMAGES = ("fid", "kid", "precision", "recall", "density", "coverage", "vendi")
POINTS = ("energy", "sliced_wasserstein", "wasserstein", "mmd", "precision", "recall")
ARRAYS = (*IMAGES, "energy")


class _AutoFeatures(Registry[FeatureSource]):
    """The feature extractors, and "auto": `own` for pictures and arrays, `pixels` for points."""

    def build(self, spec: Any, where: str = "") -> Any:
        """None for "auto"; see `Registry.build`."""
        return None if spec in ("auto", None) else extractors.build(spec, where)

    def describe(self, part: Any) -> Any:
        """See `Registry.describe`."""
        return "auto" if part is None else extractors.describe(part)


@dataclass(frozen=True)
class EvaluationSettings(Checked):
    """What is measured; what is not said is chosen by the kind of data."""

    metrics: tuple[str, ...] | None = option(None, help="names of metrics: see `unnoise list metrics`")
    features: FeatureSource | None = option(
        None,
        help="what samples are compared by: see `unnoise list features`",
        one_of=_AutoFeatures("feature extractor"),
    )
    baseline: bool = option(True, help="whether real data that the model never saw is measured in the same way")
    memorisation: bool = option(True, help="whether to look for copies of the training data")
    seed: int = option(0, help="of whatever a metric draws", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metrics or ():
            metrics[name]  # an unknown name is refused here, with the nearest known one


def default_number(spec: Spec, most: int | None = None) -> int:
    """How many samples are judged if nothing is said: 1,000 of pictures, 2,000 of points; of a folder, all that it holds."""
    return most or (2000 if spec.kind == "points" else 1000)


def default_metrics(spec: Spec, labelled: bool) -> tuple[str, ...]:
    """The metrics that suit a kind of data."""
    chosen = {"image": IMAGES, "points": POINTS, "array": ARRAYS}[spec.kind]
    return (*chosen, "accuracy") if labelled else chosen


def default_features(spec: Spec) -> FeatureSource:
    """A network of unnoise's own for pictures and arrays; points as they are."""
    source: FeatureSource = extractors.build("pixels" if spec.kind == "points" else "own")
    return source


@dataclass(frozen=True)
class EvaluationPlan(Checked):
    """What is measured while a model is trained, on its averaged weights."""

    every: int = option(0, help="samples that training sees between two evaluations; 0 for none", low=0)
    n: int = option(500, help="samples that are made and measured each time", low=16)
    metrics: tuple[str, ...] | None = option(
        None, help="names of metrics; by default FID and KID, or the energy distance of points"
    )
    features: FeatureSource | None = option(
        None, help="what samples are compared by", one_of=_AutoFeatures("feature extractor")
    )
    steps: int | None = option(None, help="steps from noise to data; as the model is sampled by default", low=1)
    memorisation: bool = option(True, help="whether to look for copies of the training data each time")
    best_by: str | None = option(None, help="the metric whose best model is kept in `best/`; the first one by default")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metrics or ():
            metrics[name]
        if self.best_by is not None and self.metrics is not None and self.best_by not in self.metrics:
            raise BadOption(f"best_by: must be one of the metrics ({', '.join(self.metrics)}), got {self.best_by}")
