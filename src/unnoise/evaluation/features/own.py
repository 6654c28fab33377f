"""A small network that unnoise trains on the real data itself: features without anybody else's weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...data.base import Dataset, Spec
from ...options import option
from .base import Extractor, FeatureSource, Progress, extractors
from .digest import digest_of
from .looking import check_samples
from .own_folder import Kept, Owner, noted, read, write
from .own_network import OwnNetwork
from .own_training import Plan, in_blocks, learn, seen

LARGEST = 64
SHOWN = 200_000
FEW_SHOWN = 30_000


@extractors.register("own")
@dataclass(frozen=True)
class OwnFeatures(FeatureSource):
    """A network learned on the real data: by its labels where it has some, else by knowing two views of a sample as one.

    It is learned once for a data set, in a minute or two on one core of a processor, kept in the user's cache, and used
    for every model of that data, so that their numbers can be compared. They say nothing beside numbers from another
    data set, or from another seed.

    Pictures of 1, 3 or 4 channels are brought to a square of at most 64 pixels. Points are seen by three layers; arrays of
    two, three or four dimensions, such as spectrograms, sound and video, by convolutions over all dimensions but the
    first, with a first layer whose stride leaves at most 256, 16 or 8 places along each; all others are flattened.

    References:
        Exposing flaws of generative model evaluation metrics (Stein et al., 2023), Section 3, on features learned without
        labels, https://arxiv.org/abs/2306.04675

    Args:
        seed: Of the first weights, the order of the data and its views.
        labels: Whether labels are learned where there are some; else it learns without them.
        size: The side that pictures are brought to; 0 is their own, at most 64.
        shown: How many samples it is shown; 0 is twenty times the data, at least 30,000 and at most 200,000, and half of that
            without labels, where each is shown as two views.
    """

    seed: int = option(0, help="which network: of its first weights, the order of the data and its views", low=0)
    labels: bool = option(True, help="learn the labels of the data, where it has some")
    size: int = option(0, help="bring pictures to a square of this side; 0 is their own, at most 64", low=0, high=256)
    shown: int = option(
        0, help="samples shown in training; 0 is 20 times the data, 30,000 to 200,000, without labels half", low=0
    )

    def prepare(self, data: Dataset, progress: Progress | None = None) -> OwnExtractor:
        """See `FeatureSource.prepare`."""
        plan = self._plan(data)
        owner = Owner(data.fingerprint(), asdict(plan))
        found = read(owner)
        if isinstance(found, Kept):
            return OwnExtractor(data.spec, plan.size, found)
        network, learned = learn(data, plan, progress)
        about = {"name": "own", "data": owner.data, "seed": self.seed, **learned}
        steps = _steps(data.spec, plan, network)
        kept = write(owner, Kept(network, steps, about, digest_of(steps, network.state_dict())))
        if found is not None:
            kept = noted(kept, f"the kept features in {owner.folder} were damaged and were learned again: {found}")
        return OwnExtractor(data.spec, plan.size, kept)

    def _plan(self, data: Dataset) -> Plan:
        picture = data.spec.kind == "image"
        size = (self.size or min(LARGEST, max(data.spec.shape[1:]))) if picture else 0
        by_labels = self.labels and data.labels is not None and len(data.labels.unique()) > 1
        views = 1 if by_labels else 2
        shown = self.shown or min(SHOWN, max(FEW_SHOWN, 20 * len(data))) // views
        return Plan(self.seed, size, shown, by_labels)


def _steps(spec: Spec, plan: Plan, network: OwnNetwork) -> dict[str, Any]:
    steps = {"name": "own", "kind": spec.kind, "shape": list(spec.shape), "resize": _resize(spec, plan.size)}
    return {**steps, "seen": list(network.shape), "classes": spec.num_classes if plan.by_labels else 0}


def _resize(spec: Spec, size: int) -> str:
    return f"bicubic to {size} x {size}" if size and spec.shape[1:] != (size, size) else "none"


class OwnExtractor(Extractor):
    """What a learned network says of samples before its head, of mean 0 and mean variance 1 over the real data.

    Args:
        spec: What one sample is.
        size: The side that pictures are brought to; 0 leaves samples as they are.
        kept: The network, and what belongs to it.
    """

    def __init__(self, spec: Spec, size: int, kept: Kept) -> None:
        self.spec = spec
        self.size = size
        self.network = kept.network
        self.dim = kept.network.dim
        self.hash = kept.hash
        self.resize = _resize(spec, size)
        self.about = kept.about

    def __call__(self, x: Tensor) -> Tensor:
        """See `Extractor.__call__`."""
        check_samples(x, self.spec)
        return in_blocks(self.network, x, self.size)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `Extractor.maps`: its four layers."""
        return self.network.maps(seen(x.to(self.network.mean.device), self.size)) or super().maps(x)

    def classify(self, features: Tensor) -> Tensor | None:
        """See `Extractor.classify`; labels are known where it was learned by them."""
        if self.network.head is None:
            return None
        with torch.no_grad():
            return self.network.logits(features.to(torch.float32)).argmax(1)
