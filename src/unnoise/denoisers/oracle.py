"""Exact denoisers: the yardsticks that samplers, objectives and trained models are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BadOption, ShapeError
from ..process.base import Schedule
from ..randomness import address, normal_like, uniform
from ..shapes import over, per_sample
from .base import Condition, Denoiser


def _asked(owner: Tensor | None, cond: Condition | None, num_classes: int, batch: int) -> Tensor | None:
    """The label of each sample of the batch, shape (B,), or None where nothing depends on one."""
    if owner is None or cond is None or "label" not in cond:
        return None
    label = cond["label"].to(owner.device)
    if label.shape[0] != batch:
        raise ShapeError(f"expected {batch} labels, got {label.shape[0]}")
    if bool(((label < 0) | (label > num_classes)).any()):
        raise BadOption(
            f"label: expected 0 to {num_classes - 1}, or {num_classes} for none, got {label.flatten().tolist()[:8]}"
        )
    return label


def _wanted(owner: Tensor | None, cond: Condition | None, num_classes: int, batch: int) -> Tensor | None:
    """Which members each sample of the batch may come from, shape (B, K), or None for all."""
    label = _asked(owner, cond, num_classes, batch)
    if owner is None or label is None:
        return None
    return (owner[None] == label[:, None]) | (label[:, None] == num_classes)


class GaussianMixtureOracle(Denoiser):
    """The exact denoiser of a mixture of round normal distributions.

    Args:
        means: Shape (K, D).
        stds: Shape (K,), at least 0.
        weights: Shape (K,), positive; they are scaled to sum to 1.
        schedule: Alpha and sigma.
        labels: The class of each component, K integers from 0 on, for conditions {"label": (B,)}.

    Raises:
        ShapeError: The shapes do not fit.
        BadOption: A weight or standard deviation is out of range.
    """

    def __init__(
        self,
        means: Tensor,
        stds: Tensor,
        weights: Tensor,
        schedule: Schedule,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.means, self.stds, weights = (torch.as_tensor(v, dtype=torch.float64) for v in (means, stds, weights))
        if self.means.ndim != 2 or self.stds.shape != self.means.shape[:1] or weights.shape != self.stds.shape:
            raise ShapeError(
                f"expected means (K, D), stds (K,) and weights (K,), got {tuple(self.means.shape)}, {tuple(self.stds.shape)} "
                f"and {tuple(weights.shape)}"
            )
        if bool((weights <= 0).any()) or bool((self.stds < 0).any()):
            raise BadOption("weights must be positive and stds at least 0")
        self.log_weights = (weights / weights.sum()).log()
        self.schedule = schedule
        self.sigma_data = self._spread()
        self.owner = None if labels is None else torch.as_tensor(labels)
        self.num_classes = 0 if self.owner is None else int(self.owner.max()) + 1

    def _spread(self) -> float:
        weights = self.log_weights.exp()
        mean = weights @ self.means
        variance = weights @ (((self.means - mean) ** 2).mean(1) + self.stds**2)
        return float(variance.sqrt()) or 1.0

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The label after the last, where there are labels."""
        if self.owner is None:
            return {}
        return {"label": torch.full((batch,), self.num_classes, device=device)}

    def _terms(self, x: Tensor, t: Tensor, cond: Condition | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ShapeError(f"expected x of shape (B, {self.means.shape[1]}), got {tuple(x.shape)}")
        alpha, sigma = (over(v, x) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        means, stds = self.means.to(x), self.stds.to(x)
        variance = (alpha * stds) ** 2 + sigma**2  # (K,) or (B, K)
        offset = x[:, None] - (alpha[..., None] if alpha.ndim else alpha) * means  # (B, K, D)
        log_terms = self.log_weights.to(x) - 0.5 * ((offset**2).sum(-1) / variance)
        log_terms = log_terms - 0.5 * x.shape[1] * (2 * math.pi * variance).log()
        wanted = _wanted(self.owner, cond, self.num_classes, len(x))
        if wanted is not None:
            log_terms = torch.where(wanted.to(x.device), log_terms, -torch.inf)
            prior = torch.where(wanted.to(x.device), self.log_weights.to(x), -torch.inf)
            log_terms = log_terms - prior.logsumexp(1, keepdim=True)
        return log_terms, offset, variance, alpha

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t, cond] for x_t of shape (B, D); see `Denoiser.forward`."""
        log_terms, offset, variance, alpha = self._terms(x_t, t, cond)
        shares = log_terms.softmax(1)[..., None]
        pull = (alpha * self.stds.to(x_t) ** 2 / variance)[..., None]  # (K, 1) or (B, K, 1)
        return (shares * (self.means.to(x_t) + pull * offset)).sum(1)

    def log_prob(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The log-density of noisy data at time t, in nats; x of shape (B, D), result (B,)."""
        return self._terms(x, t, cond)[0].logsumexp(1)

    def score(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The gradient of `log_prob` in x, shape (B, D)."""
        log_terms, offset, variance, _ = self._terms(x, t, cond)
        return -(log_terms.softmax(1)[..., None] * offset / variance[..., None]).sum(1)

    def sample(self, n: int, seed: int = 0, label: int | None = None) -> Tensor:
        """Exact samples of the clean data, shape (n, D), float64.

        Args:
            n: How many.
            seed: Which.
            label: Only from the components of this class.
        """
        weights = self.log_weights.exp()
        if label is not None and self.owner is not None:
            weights = torch.where(self.owner == label, weights, 0.0)
        edges = (weights / weights.sum()).cumsum(0)
        u = torch.from_numpy(uniform(address(seed, "mixture"), range(n))[:, 0].copy())
        component = torch.searchsorted(edges, u).clamp(max=len(edges) - 1)
        eps = normal_like(
            address(seed, "mixture noise"), range(n), torch.empty(n, self.means.shape[1], dtype=torch.float64)
        )
        return self.means[component] + self.stds[component, None] * eps


class DatasetOracle(Denoiser):
    """The exact posterior mean of a finite data set: the network that would reach the Bayes floor.

    Args:
        points: The clean data, shape (N, ...).
        schedule: Alpha and sigma.
        labels: The class of each sample, shape (N,), for conditions {"label": (B,)}.
        num_classes: How many classes there are; the null label.
    """

    block = 8192

    def __init__(
        self, points: Tensor, schedule: Schedule, labels: Tensor | None = None, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.points = points
        self.schedule = schedule
        self.sigma_data = float((points.double() - points.double().mean(0)).square().mean().sqrt()) or 1.0
        self.owner = labels
        self.num_classes = (0 if labels is None else int(labels.max()) + 1) if num_classes is None else num_classes

    def null_condition(self, batch: int, device: torch.device | None = None) -> Condition:
        """The label after the last, where there are labels."""
        if self.owner is None:
            return {}
        return {"label": torch.full((batch,), self.num_classes, device=device)}

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """The mean of the data, each sample weighted by how likely it became x_t; see `Denoiser.forward`.

        Raises:
            ShapeError: x_t has another shape than the data.
        """
        if x_t.shape[1:] != self.points.shape[1:]:
            raise ShapeError(
                f"expected x_t of shape (B, {str(tuple(self.points.shape[1:]))[1:]}, got {tuple(x_t.shape)}"
            )
        x = x_t.flatten(1).double()
        alpha = per_sample(self.schedule.alpha(t), x_t).to(x)[:, None]
        sigma = per_sample(self.schedule.sigma(t), x_t).to(x)[:, None].clamp(min=1e-12)
        label = _asked(self.owner, cond, self.num_classes, len(x))
        if label is None or self.owner is None:
            mean = self._mean(self.points, x, alpha, sigma)
        else:
            mean = torch.empty_like(x)
            for one in label.unique().tolist():  # who may come from one class alone need not be held against the others
                rows = label == one
                members = self.points if one == self.num_classes else self.points[self.owner == one]
                mean[rows] = self._mean(members, x[rows], alpha[rows], sigma[rows])
        return mean.reshape(x_t.shape).to(x_t.dtype)

    def _mean(self, members: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The mean of some of the data as seen from each x of shape (B, D); NaN where there are none."""
        likely, mean = torch.full_like(sigma, -torch.inf), torch.zeros_like(x)
        signs = torch.cat([alpha / sigma**2 * x, -0.5 * (alpha / sigma) ** 2], 1)
        for part in members.split(self.block) if len(members) else ():
            points = part.flatten(1).to(x)
            # Distances by one matrix product; in float64, so that the cancellation costs nothing that matters.
            logits = signs @ torch.cat([points, points.square().sum(1, keepdim=True)], 1).T
            shares = logits.softmax(1)
            # The logarithm of what the shares are of, by the largest of them.
            here = logits.amax(1, keepdim=True) - shares.amax(1, keepdim=True).log()
            both = torch.logaddexp(likely, here)
            mean, likely = mean + (here - both).exp() * (shares @ points - mean), both
        return mean if len(members) else torch.full_like(mean, torch.nan)
