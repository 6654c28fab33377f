"""How the network learns one data set: by labels where there are some, else by knowing two views of a sample as one.

Knowing views as one alone would teach it to look past blur and noise, which samples of a model are to be blamed for. So that
without labels it must also tell how much each view was blurred and how noisy it was made; with that, the Frechet distance
of 64 x 64 drawings to themselves blurred by 3/4 of a pixel rose from 1.05 times that of two halves of them to 26 times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ...data.base import Dataset
from ...errors import DataError
from ...randomness import address, permutations, torch_seeded
from .base import Progress
from .own_network import OwnNetwork
from .own_views import light_view, strong_view
from .resize import resized

BATCH = 128
PAIRS = 256  # samples of a batch that learns without labels, whose statistics need more
BLOCK = 64  # samples that the network is always given at once, so that each is summed in the same order
RATE = 3e-3
TOLD = 25.0  # what it weighs to tell how a view was blurred and made noisy, beside VICReg
MOST_HELD_OUT = 5000


@dataclass(frozen=True)
class Plan:
    """How the network is to learn.

    Args:
        seed: Of the first weights, the order and the views.
        size: Side that pictures are brought to; 0 for samples that are seen as they are.
        shown: How many samples are shown in all.
        by_labels: Whether labels are learned.
    """

    seed: int
    size: int
    shown: int
    by_labels: bool


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch sums on one thread: in the same order on every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seen(x: Tensor, size: int) -> Tensor:
    """Samples as the network sees them: float32, pictures in [0, 255] brought to a square of this side."""
    return resized(x, size, size, "bicubic") if size else x.to(torch.float32)


def in_blocks(network: OwnNetwork, x: Tensor, size: int) -> Tensor:
    """The features of samples, the same for a sample whatever stands beside it; shape (B, dim)."""
    rows = []
    with torch.no_grad():
        for block in x.split(BLOCK):
            entered = seen(block, size)
            filled = torch.cat([entered, entered.new_zeros(BLOCK - len(block), *entered.shape[1:])])
            rows.append(network.features(filled)[: len(block)])
    return torch.cat(rows) if rows else torch.zeros(0, network.dim)


def learn(data: Dataset, plan: Plan, progress: Progress | None = None) -> tuple[OwnNetwork, dict[str, Any]]:
    """A network that has learned a data set, and what a reader should know of it.

    Args:
        data: The real data.
        plan: How.
        progress: Told of samples shown.

    Raises:
        DataError: There is too little data, or what the network says became infinite.
    """
    data.check()
    if len(data) < 4:
        raise DataError(
            f"features cannot be learned from {len(data)} samples: give more, or take the extractor 'pixels'"
        )
    with one_thread():
        return _learn(data, plan, progress)


def _learn(data: Dataset, plan: Plan, progress: Progress | None) -> tuple[OwnNetwork, dict[str, Any]]:
    shape = tuple(seen(data.x[:1], plan.size).shape[1:])
    with torch_seeded(address(plan.seed, "own features"), torch.device("cpu")):
        network = OwnNetwork(shape, data.spec.num_classes if plan.by_labels else 0)
        others = nn.ModuleList([] if plan.by_labels else [_projector(network.dim), nn.Linear(network.dim, 2)])
    order = torch.from_numpy(permutations(plan.seed, len(data), 0, 1)[0])
    held_out, kept = order.split([min(MOST_HELD_OUT, len(data) // 10), len(data) - min(MOST_HELD_OUT, len(data) // 10)])
    _standardise(network, data, kept, plan)
    _train(network, others, data, kept, plan, progress)
    network.eval()
    _scale(network, data, kept, plan)
    measured = (
        _by_labels(network, data, held_out, plan)
        if plan.by_labels
        else _by_views(network, others, data, held_out, plan)
    )
    about = {"training samples": len(kept), "held-out samples": len(held_out), "shown": plan.shown, **measured}
    return network, about


def _projector(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 512, bias=False), nn.BatchNorm1d(512), nn.GELU(), nn.Linear(512, 512))


def _standardise(network: OwnNetwork, data: Dataset, kept: Tensor, plan: Plan) -> None:
    """Sets the mean and the standard deviation that samples enter with: of each channel, or of each number of flat ones."""
    axes = [
        axis for axis in range(1, network.mean.ndim + 1) if network.mean.shape[axis - 1] == 1 and network.mean.ndim > 1
    ]
    some = kept[:20_000].sort().values
    total, square, count = torch.zeros(()), torch.zeros(()), 0
    for block in some.split(1000):
        x = seen(data.x[block], plan.size).to(torch.float64)
        total = total + x.mean(axes, keepdim=True).sum(0) if axes else total + x.sum(0)
        square = square + (x**2).mean(axes, keepdim=True).sum(0) if axes else square + (x**2).sum(0)
        count += len(block)
    mean = total / count
    std = (square / count - mean**2).clamp(min=0).sqrt()
    # What never changes, but for rounding, says nothing, and stays near 0.
    network.mean.copy_(mean.reshape(network.mean.shape))
    network.std.copy_(torch.where(std > 1e-6 * mean.abs(), std, 1.0).reshape(network.std.shape))


def _train(
    network: OwnNetwork, others: nn.ModuleList, data: Dataset, kept: Tensor, plan: Plan, progress: Progress | None
) -> None:
    """AdamW with a rate that rises for a fifth of the way and falls to 0."""
    size = min(BATCH if plan.by_labels else PAIRS, len(kept))
    steps = max(1, math.ceil(plan.shown / size))
    weights: list[Tensor] = [*network.parameters(), *others.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in weights if p.ndim > 1]},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / (0.2 * steps), (1 - i / steps) / 0.8, 1)
    )
    network.train()
    for step, rows in enumerate(_batches(kept, size, steps, plan.seed)):
        draw = Generator().manual_seed(address(plan.seed, "own views", step)[0])
        x = (seen(data.x[rows], plan.size) - network.mean) / network.std
        loss = (
            _label_loss(network, x, data, rows, draw) if plan.by_labels else _view_loss(network, others, x, data, draw)
        )
        if not torch.isfinite(loss):
            raise DataError(
                f"learning features diverged at step {step + 1} of {steps}: look for values far from all others"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rate.step()
        if progress is not None:
            progress("learning features of the data", min((step + 1) * size, plan.shown), plan.shown)


def _batches(kept: Tensor, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Row numbers, a new order each time that all have been shown."""
    whole = len(kept) // size
    for step in range(steps):
        epoch, place = divmod(step, whole)
        if place == 0:
            order = torch.from_numpy(permutations(seed, len(kept), epoch + 1, 1)[0])
        yield kept[order[place * size : (place + 1) * size]]


def _label_loss(network: OwnNetwork, x: Tensor, data: Dataset, rows: Tensor, draw: Generator) -> Tensor:
    assert data.labels is not None
    assert network.head is not None
    said = network.head(network.trunk(light_view(x, draw, data.spec.kind == "image")))
    return functional.cross_entropy(said, data.labels[rows], label_smoothing=0.1)


def _view_loss(network: OwnNetwork, others: nn.ModuleList, x: Tensor, data: Dataset, draw: Generator) -> Tensor:
    """VICReg of two views, and the error of telling what was done to them.

    References:
        Equivariant Contrastive Learning (Dangovski et al., 2022), Equation 2, https://arxiv.org/abs/2111.00899
    """
    picture = data.spec.kind == "image"
    views, done = zip(*(strong_view(x, draw, picture) for _ in range(2)), strict=True)
    said = network.trunk(torch.cat(views))
    projector, guess = others
    wrong = functional.mse_loss(guess(said)[:, 0 if picture else 1 :], torch.cat(done)[:, 0 if picture else 1 :])
    return vicreg(*projector(said).chunk(2)) + TOLD * wrong


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    r"""Two views alike, numbers that vary, and none that says what another says.

    .. math:: 25\, \overline{(a - b)^2} + 25 \cdot \tfrac12 \sum_{z} \overline{\max(0, 1 - \sqrt{\mathrm{var}\, z + 10^{-4}})}
        + \sum_z \tfrac1D \sum_{i \ne j} \mathrm{cov}(z)_{ij}^2

    References:
        VICReg: Variance-Invariance-Covariance Regularization (Bardes et al., 2022), Equation 6 and Appendix A,
        https://arxiv.org/abs/2105.04906

    Args:
        a: What is said of one view of each sample, shape (B, D).
        b: The same of another view.
    """
    spread, alike = a.new_zeros(()), functional.mse_loss(a, b)
    doubled = a.new_zeros(())
    for z in (a, b):
        z = z - z.mean(0)
        variance = (z**2).sum(0) / (len(z) - 1)
        spread = spread + functional.relu(1 - (variance + 1e-4).sqrt()).mean() / 2
        covariance = z.T @ z / (len(z) - 1)
        doubled = doubled + ((covariance**2).sum() - (covariance.diagonal() ** 2).sum()) / z.shape[1]
    return 25 * alike + 25 * spread + doubled


def _scale(network: OwnNetwork, data: Dataset, kept: Tensor, plan: Plan) -> None:
    """Sets what features are moved and divided by: their means, and one standard deviation for all."""
    some = kept[:5000].sort().values
    rows = torch.cat([in_blocks(network, data.x[block], plan.size) for block in some.split(1024)]).to(torch.float64)
    if not torch.isfinite(rows).all():
        raise DataError("what was learned of the data is no number: look for values that are far from all others")
    network.centre.copy_(rows.mean(0))
    network.spread.copy_(rows.var(0, correction=0).mean().sqrt().clamp(min=1e-12))


def _by_labels(network: OwnNetwork, data: Dataset, held_out: Tensor, plan: Plan) -> dict[str, Any]:
    assert data.labels is not None
    if len(held_out) == 0:
        return {"learned by": "labels", "accuracy": None}
    right = 0
    with torch.no_grad():
        for block in held_out.split(1024):
            said = network.logits(in_blocks(network, data.x[block], plan.size)).argmax(1)
            right += int((said == data.labels[block]).sum())
    return {"learned by": "labels", "accuracy": right / len(held_out)}


def _by_views(
    network: OwnNetwork, others: nn.ModuleList, data: Dataset, held_out: Tensor, plan: Plan
) -> dict[str, Any]:
    """The share of up to 1,000 samples for which, among all second views, its own lies nearest to its first."""
    some = held_out[:1000]
    if len(some) == 0:
        return {"learned by": "two views", "recognised": None}
    draw = Generator().manual_seed(address(plan.seed, "own recognised")[0])
    x = (seen(data.x[some], plan.size) - network.mean) / network.std
    picture, projector = data.spec.kind == "image", others.eval()[0]
    with torch.no_grad():
        a, b = (projector(network.trunk(strong_view(x, draw, picture)[0])) for _ in range(2))
        a, b = a - a.mean(0), b - b.mean(0)
    near = (functional.normalize(a) @ functional.normalize(b).T).argmax(1)
    return {"learned by": "two views", "recognised": float((near == torch.arange(len(some))).double().mean())}
