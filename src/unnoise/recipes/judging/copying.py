"""Whether samples are copies of training data: in pixels, and in the features that pictures are compared by."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from ...data.base import Dataset, Progress
from ...evaluation.features.base import Extractor
from ...evaluation.features.store import reference_features
from ...evaluation.memorisation import Compared, Memorisation, memorisation
from ...pictures.distances import nearest_distances
from ...pictures.pairs import closest_pairs as draw_pairs
from .clouds import rows, some
from .real import RealData

MOST_HELD_OUT = 2000
"""Held-out samples whose way to the training data is worked out at least, where there are so many."""
SHOWN = 12


def copying(
    made: Tensor,
    real: RealData,
    extractor: Extractor,
    seen: Tensor,
    seed: int = 0,
    progress: Progress | None = None,
) -> Memorisation:
    """Whether samples are copies.

    Args:
        made: The samples, in the units of the data.
        real: With the training data, and what was held out of it.
        extractor: Of the features.
        seen: The features of the samples, shape (N, D).
        seed: Of the choice of held-out samples, where there are many.
        progress: Told of the search.

    Raises:
        DataError: There is too little different training data to tell, or samples are not finite.
    """
    train, held_out = real.train, real.held_out
    chosen = None if held_out is None else some(held_out, max(len(made), MOST_HELD_OUT), seed)
    features = None
    if held_out is not None:
        assert chosen is not None
        features = reference_features(held_out, extractor, progress)[chosen]
        held_out = held_out.take(chosen)
    spaces = {
        _data_space(train): _in_data_space(made, train, held_out),
        "features": Compared(seen, reference_features(train, extractor, progress), features),
    }
    if extractor.about.get("name") == "pixels" and extractor.resize == "none":
        del spaces["features"]  # the same space again
    return memorisation(spaces, closest=SHOWN, seed=seed, progress=progress)


def _in_data_space(made: Tensor, train: Dataset, held_out: Dataset | None) -> Compared:
    """As flat rows; as pictures where the model learned from mirror images too, so that these count as the same."""
    flips = train.augmentation.flips

    def as_compared(x: Tensor) -> Tensor:
        return rows(x).reshape(x.shape) if flips else rows(x)

    new = None if held_out is None else as_compared(held_out.x)
    return Compared(as_compared(made), as_compared(train.x), new, flips=flips)


def _data_space(data: Dataset) -> str:
    return {"image": "pixels", "points": "coordinates", "array": "values"}[data.spec.kind]


def brief(found: Memorisation) -> str:
    """The verdict in one short sentence."""
    parts = [f"{100 * each.copies.value:.3g} % in {name}" for name, each in found.spaces.items()]
    each = next(iter(found.spaces.values()))
    own = " and ".join(f"{100 * each.baseline.value:.3g} %" for each in found.spaces.values())
    of = f"of {each.copies.trials:,} samples {' and '.join(parts)} are next to one training sample"
    return f"{found.verdict}: {of} (of {each.against}: {own})"


def closest_pairs(found: Memorisation, made: Tensor, train: Dataset) -> Image.Image | None:
    """The samples that are most like a training sample, each beside it; None where they have no picture."""
    if train.spec.kind != "image":
        return None
    pairs = found.spaces["pixels"].pairs
    if not pairs:
        return None
    samples, neighbours = ([getattr(pair, name) for pair in pairs] for name in ("sample", "train"))
    return draw_pairs(
        made[samples], train.x[neighbours], [f"{pair.distance:.3g}, {pair.ratio:.2f} of the second" for pair in pairs]
    )


def distances_picture(found: Memorisation) -> Image.Image:
    """How near samples lie to the training data, and how near data does that was not learned: a panel for each space.

    Raises:
        MissingExtra: Matplotlib is not installed.
    """
    return nearest_distances(
        {
            name: (each.distances.numpy(), each.baseline_distances.numpy(), each.against)
            for name, each in found.spaces.items()
        }
    )
