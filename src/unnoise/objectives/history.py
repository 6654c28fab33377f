"""The losses that a run remembers of each share of its times, and how often each is drawn because of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import RunFolderError


class LossHistory:
    """The last losses of each share of a density, and how often each is drawn because of them.

    It is the same on every process of a run, since all of them look at the losses of the whole batch.

    Args:
        strata: How many shares.
        memory: Losses that are kept of each.
        uniform: Share of samples that are drawn from all of them alike.
        refresh: Steps after which `shares` is worked out anew.
    """

    def __init__(self, strata: int, memory: int, uniform: float, refresh: int) -> None:
        self.uniform, self.refresh = uniform, refresh
        self.losses = torch.zeros(strata, memory, dtype=torch.float64)
        self.seen = torch.zeros(strata, dtype=torch.int64)
        self.shares = torch.full((strata,), 1 / strata, dtype=torch.float64)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform numbers, bent towards large losses.

        Args:
            u: Uniform in (0, 1), shape (B,), float64.

        Returns:
            Where in the density underneath, in (0, 1); which of its shares that is, int64; and by how much rarer it would be
            drawn without bending, the weight of its loss. Shape (B,) each.
        """
        strata = len(self.shares)
        if bool((self.shares == self.shares[0]).all()):
            return u, (u * strata).long(), torch.ones_like(u)
        ends = self.shares.cumsum(0)
        stratum = torch.searchsorted(ends, u, right=True).clamp(max=strata - 1)
        share = self.shares[stratum]
        inside = ((u - (ends[stratum] - share)) / share).clamp(1e-9, 1 - 1e-9)  # so that no rounding leaves the share
        return (stratum + inside) / strata, stratum, 1 / (strata * share)

    def observe(self, stratum: Tensor, losses: Tensor) -> None:
        """Notes the losses of a batch.

        Nothing is copied from another device before `settle`.

        Args:
            stratum: From `draw`, in order of position, shape (B,).
            losses: Shape (B,).
        """
        self._pending.append((stratum, losses.detach()))

    def settle(self) -> None:
        """Files what was observed: of each share the newest losses stay."""
        if not self._pending:
            return
        stratum = torch.cat([stratum for stratum, _ in self._pending]).cpu()
        losses = torch.cat([losses for _, losses in self._pending]).double().cpu()
        self._pending = []
        order = torch.argsort(stratum, stable=True)
        stratum, losses = stratum[order], losses[order]
        counts = torch.bincount(stratum, minlength=len(self.seen))
        nth = torch.arange(len(stratum)) - (counts.cumsum(0) - counts)[stratum]
        memory = self.losses.shape[1]
        newest = nth >= counts[stratum] - memory
        place = (self.seen[stratum] + nth) % memory
        self.losses[stratum[newest], place[newest]] = losses[newest]
        self.seen += counts

    def update(self, step: int) -> None:
        """Told how many steps are made; every `refresh` of them works out anew how often each share is drawn."""
        if step % self.refresh:
            return
        self.settle()
        if bool((self.seen >= self.losses.shape[1]).all()):
            size = self.losses.square().mean(1).sqrt()
            if bool(torch.isfinite(size).all()) and float(size.sum()) > 0:
                self.shares = (1 - self.uniform) * size / size.sum() + self.uniform / len(size)

    def tensors(self) -> dict[str, Tensor]:
        """All that there is to remember, by name."""
        self.settle()
        return {"losses": self.losses, "seen": self.seen, "shares": self.shares}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes what another run remembered.

        Raises:
            RunFolderError: It told other shares apart.
        """
        mine = self.tensors()
        if set(mine) != set(tensors) or any(mine[name].shape != tensors[name].shape for name in mine):
            raise RunFolderError("the checkpoint remembers the losses of other times: use another --out")
        self.losses, self.seen, self.shares = (tensors[name].clone() for name in ("losses", "seen", "shares"))
