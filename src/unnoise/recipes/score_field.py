"""The score that a model of points has learned, beside the exact one of its training data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..codecs.base import Codec
from ..data.base import Dataset
from ..denoisers.oracle import DatasetOracle
from ..errors import BadOption, DataError
from ..model import Model
from ..pictures.points import quiver
from ..pictures.strip import stack, strip
from ..process.base import log_snr_at, scales, time_at
from ..process.forward import add_noise, score_from_x_0
from ..randomness import NoiseSource
from .gallery import MOST_POINTS, Limits, choose, limits_of

NOISES = (0.1, 0.35, 1.2)  # sigma / alpha, where data that has about unit variance is still seen, blurred and lost


def model_score(model: Model, points: Tensor, t: float) -> Tensor:
    r"""The score that a model has learned, :math:`(\alpha D - x_t) / \sigma^2`, in the units of the data.

    Args:
        model: Of points, or of anything whose codec works on each value by itself.
        points: Noisy data in the units of the data, shape (B, D).
        t: Their time, in (0, 1].

    Returns:
        Shape (B, D), float64.

    Raises:
        BadOption: The time is out of range.
    """
    if not 0 < t <= 1:
        raise BadOption(f"t: a score needs noise, so a time in (0, 1], got {t}")
    x, at = model.blueprint.codec.encode(points.double()), torch.tensor(t, dtype=torch.float64)
    first = next(model.denoiser.parameters(), None)
    given = x if first is None else x.to(first)
    with torch.no_grad():
        denoised = model.denoiser(given, at).to(x)
    return score_from_x_0(denoised, x, model.denoiser.schedule, at) * _slope(model.blueprint.codec, points)


def _exact_score(oracle: DatasetOracle, codec: Codec, points: Tensor, t: float) -> Tensor:
    x, at = codec.encode(points.double()), torch.tensor(t, dtype=torch.float64)
    return score_from_x_0(oracle(x, at), x, oracle.schedule, at) * _slope(codec, points)


def _slope(codec: Codec, points: Tensor) -> Tensor:
    """The derivative of the codec, by which a gradient in its space becomes one in the units of the data."""
    ends = torch.zeros_like(points[:1], dtype=torch.float64), torch.ones_like(points[:1], dtype=torch.float64)
    return codec.encode(ends[1]) - codec.encode(ends[0])


def score_error(model: Model, data: Dataset, t: float, seed: int = 0) -> float:
    """How far the learned score is from the exact one on noisy data, relative to the exact one's size.

    Args:
        model: Of points.
        data: What it was trained on; at most 2,000 samples are used.
        t: In (0, 1].
        seed: Of the noise.

    Returns:
        The root of the ratio of the mean squares: 0 is exact, 1 as wrong as saying nothing.
    """
    codec, schedule = model.blueprint.codec, model.denoiser.schedule
    some = choose(data, MOST_POINTS)
    x_0 = codec.encode(data.x[some].double())
    eps = NoiseSource(seed, some.tolist()).start(x_0.shape[1:], x_0.dtype)
    noisy = codec.decode(add_noise(x_0, eps, schedule, torch.tensor(t, dtype=torch.float64)))
    exact = _exact_score(DatasetOracle(codec.encode(data.x.double()), schedule), codec, noisy, t)
    return math.sqrt(float(((model_score(model, noisy, t) - exact) ** 2).sum() / (exact**2).sum()))


@dataclass(frozen=True)
class ScoreNumbers:
    """The score on a lattice at one time.

    Args:
        at: Where, in the units of the data, shape (lattice^2, 2).
        learned: The model's, same shape.
        exact: That of its training data; None where the data is not known.
        error: How far apart they are on noisy data, see `score_error`; None where the data is not known.
        cloud: The data as it stands at that time, without its noise, shape (N, 2); None where it is not known.
        window: Left, right, bottom and top of the lattice.
    """

    at: Tensor
    learned: Tensor
    exact: Tensor | None
    error: float | None
    cloud: Tensor | None
    window: Limits


def score_numbers(
    model: Model, t: float, data: Dataset | None = None, lattice: int = 19, shrink: float = 1.0
) -> ScoreNumbers:
    """The score that a model of points has learned on a lattice, beside the exact one of its data.

    Args:
        model: Of points in the plane.
        t: In (0, 1].
        data: What the model was trained on.
        lattice: Places in a row.
        shrink: By what noisy data is drawn smaller at that time, so that the lattice covers it where it has grown.

    Raises:
        BadOption: The time is out of range.
        DataError: The model does not make points in the plane.
    """
    if model.spec.kind != "points" or len(model.spec.shape) != 1 or model.spec.shape[0] != 2:
        made = f"{model.spec.kind} of shape {model.spec.shape}"
        raise DataError(f"a score field needs a model of points in the plane, this one makes {made}")
    codec, schedule = model.blueprint.codec, model.denoiser.schedule
    left, right, bottom, top = window = _window(model, data)
    x, y = torch.linspace(left, right, 2 * lattice + 1), torch.linspace(bottom, top, 2 * lattice + 1)
    still = codec.decode(torch.zeros(1, 2, dtype=torch.float64))
    at = still + (torch.cartesian_prod(x[1::2], y[1::2]).double() - still) / shrink
    learned = model_score(model, at, t)
    if data is None:
        return ScoreNumbers(at, learned, None, None, None, window)
    clean = codec.encode(data.x.double())
    exact = _exact_score(DatasetOracle(clean, schedule), codec, at, t)
    cloud = codec.decode(scales(schedule, t)[0] * clean)
    return ScoreNumbers(at, learned, exact, score_error(model, data, t), cloud, window)


def score_field(
    model: Model,
    t: float | Sequence[float] | None = None,
    data: Dataset | None = None,
    size: int = 300,
    lattice: int = 19,
) -> Image.Image:
    """The score that a model of points has learned, as arrows; with data, its exact score stands below.

    The arrows show where more data lies. Each picture and the one below it share the length of their arrows.

    Args:
        model: Of points in the plane.
        t: One time or several, in (0, 1], one column each; by default where sigma / alpha is 0.1, 0.35 and 1.2.
        data: What the model was trained on, drawn faintly as it stands at that time.
        size: Width of a picture, in pixels.
        lattice: Arrows in a row.

    Raises:
        BadOption: A time is out of range.
        DataError: The model does not make points in the plane.
    """
    schedule = model.denoiser.schedule
    if t is None:
        t = [time_at(schedule, -2 * math.log(noise)) for noise in NOISES]
    learned, exact, captions = [], [], []
    for time in (float(each) for each in ((t,) if isinstance(t, (int, float)) else t)):
        found = score_numbers(model, time, data, lattice)
        scores = [each for each in (found.learned, found.exact) if each is not None]
        reference = float(scores[-1].norm(dim=1).median()) or None
        drawn = [quiver(found.at, each, size, found.window, points=found.cloud, reference=reference) for each in scores]
        words = f"t = {time:.3g}, σ/α = {math.exp(-log_snr_at(schedule, time) / 2):.3g}"
        captions.append(words if found.error is None else f"{words}\nerror {found.error:.1%}")
        learned.append(drawn[0])
        exact += drawn[1:]
    rows = [strip(learned, captions)] + ([strip(exact)] if exact else [])
    return stack(rows, ["learned score", "exact score of the data"][: len(rows)])


def _window(model: Model, data: Dataset | None) -> Limits:
    # Without data, the window is where the codec expects it: zero mean and unit variance, out to 2.2.
    box = model.blueprint.codec.decode(torch.tensor([[-2.2, -2.2], [2.2, 2.2]], dtype=torch.float64))
    x = box if data is None else data.x
    limits = limits_of(model.spec, x)
    assert limits is not None
    return limits
