"""What goes beside the network through a run: trained with it or remembered for it, and no part of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RunFolderError
from .examples import Prepared
from .history import LossHistory
from .uncertainty import LearnedUncertainty


class Companion:
    """The memory of an objective, which is an empty one for most.

    A checkpoint holds it beside the state of the network; the model and its moving average do not. On several processes the
    gradients of `parameters` are averaged as those of the network are, and `observe` is given the losses of the whole batch, in
    order of position; nothing else is shared.

    Args:
        learned: What is trained beside the network, such as a weight of each noise level.
        history: The losses that adaptive times look at.
        betas: Memory of the two moving averages of Adam, which it is trained by.
    """

    learned_name = "uncertainty"
    """What checkpoints call the weights of what is learned."""

    def __init__(
        self,
        learned: nn.Module | None = None,
        history: LossHistory | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.learned, self.history = learned, history
        self.parameters: list[Tensor] = [] if learned is None else list(learned.parameters())
        self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self._updates = torch.zeros((), dtype=torch.float32)
        self._betas = betas

    @property
    def uncertainty(self) -> LearnedUncertainty | None:
        """A learned weight of each noise level, where there is one."""
        return self.learned if isinstance(self.learned, LearnedUncertainty) else None

    @property
    def sums(self) -> list[Tensor]:
        """What processes add up before an update, beside the gradients; nothing for most."""
        return []

    def to(self, device: torch.device) -> Companion:
        """The same with its weights on a device; in place."""
        if self.learned is not None:
            self.learned.to(device)
            self._moments = [(a.to(device), b.to(device)) for a, b in self._moments]
        return self

    def minimised(self, losses: Tensor, prepared: Prepared) -> Tensor:
        """What the mean of is minimised, shape (B,).

        Args:
            losses: Of every example, from `Objective.losses`.
            prepared: The examples.
        """
        if self.uncertainty is not None:
            u = self.uncertainty(prepared.draws.t)
            losses = losses / u.exp() + u
        return weighed(losses, prepared)

    def observe(self, losses: Tensor, stratum: Tensor | None) -> None:
        """Notes the losses of a whole batch.

        Args:
            losses: From `Objective.losses`, in order of position, shape (B,).
            stratum: Of the same examples (`Draws.stratum`).
        """
        if self.history is not None and stratum is not None:
            self.history.observe(stratum, losses)

    @torch.no_grad()
    def update(self, step: int, learning_rate: float) -> None:
        """One step of Adam from the gradients that are there, and of the history.

        Args:
            step: Updates made, this one among them.
            learning_rate: Of the network.
        """
        if self.parameters:
            self._updates += 1
            first, second = self._betas
            for p, (mean, square) in zip(self.parameters, self._moments, strict=True):
                if p.grad is None:
                    continue
                mean.lerp_(p.grad, 1 - first)
                square.mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
                count = float(self._updates)
                size = (square / (1 - second**count)).sqrt_().add_(1e-8)
                p.addcdiv_(mean, size, value=-learning_rate / (1 - first**count))
                p.grad = None
        if self.history is not None:
            self.history.update(step)

    def tensors(self) -> dict[str, Tensor]:
        """All that there is to remember, by name; on the processor."""
        found: dict[str, Tensor] = {}
        for i, (p, (mean, square)) in enumerate(zip(self.parameters, self._moments, strict=True)):
            found |= {f"{self.learned_name}/{i}": p.detach(), f"first_moment/{i}": mean, f"second_moment/{i}": square}
        if self.parameters:
            found["updates"] = self._updates
        if self.history is not None:
            found |= {f"times/{name}": tensor for name, tensor in self.history.tensors().items()}
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes what another run remembered.

        Raises:
            RunFolderError: It is that of another objective.
        """
        if set(tensors) != set(self.tensors()):
            raise RunFolderError("the checkpoint is that of another objective: use another --out")
        for i, (p, (mean, square)) in enumerate(zip(self.parameters, self._moments, strict=True)):
            for mine, name in ((p, self.learned_name), (mean, "first_moment"), (square, "second_moment")):
                mine.copy_(tensors[f"{name}/{i}"])
        if self.parameters:
            self._updates.copy_(tensors["updates"])
        if self.history is not None:
            found = {n.removeprefix("times/"): v for n, v in tensors.items() if n.startswith("times/")}
            self.history.restore(found)


def weighed(losses: Tensor, prepared: Prepared) -> Tensor:
    """Losses of examples whose times were drawn from an adaptive density, so that their mean is that of the plain one; (B,)."""
    importance = prepared.draws.importance
    return losses if importance is None else losses * importance.to(losses)
