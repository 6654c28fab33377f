"""The state of a run: weights, their moving average, the optimizer's memory, and the step. Nothing else is needed to go on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import RunFolderError
from ..precision import lower
from .flat import Flat
from .settings import TrainingSettings


class TrainState:
    """What changes while a model is trained.

    The weights that are trained are masters in float32 (float64 for a network of that). A network that computes in float32 looks
    at the masters themselves; one that computes in bfloat16 has a copy, which every update renews. Masters, gradients,
    average and moments are one vector each, so that an update is a handful of operations however many layers there are.

    Args:
        network: Holds the weights that are trained: those that require a gradient.
        settings: Of the run.
        dtype: What the network computes in; its weights are cast.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings, dtype: torch.dtype = torch.float32) -> None:
        self.network = network
        self.settings = settings
        self.step = 0
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        wide = torch.float64 if any(p.dtype == torch.float64 for p in self.parameters) else torch.float32
        self.masters = Flat({name: p.detach() for name, p in trained.items()}, wide)
        self.masters.fill([p.detach() for p in self.parameters])
        self.gradients, self.average = self.masters.another(), self.masters.another()
        self.first_moment, self.second_moment = self.masters.another(), self.masters.another()
        self.average.vector.copy_(self.masters.vector)
        self.updates = torch.zeros((), dtype=torch.float32, device=self.masters.vector.device)
        lower(network, dtype)
        self._copies: list[tuple[Tensor, Tensor]] = []
        for parameter, master in zip(self.parameters, self.masters.views, strict=True):
            if parameter.dtype == master.dtype:
                parameter.data = master
            else:
                self._copies.append((parameter.detach(), master))

    def accumulate(self) -> None:
        """Adds the gradients that a backward pass left at the network's weights to those of the update."""
        reached = [
            (v, p, p.grad) for v, p in zip(self.gradients.views, self.parameters, strict=True) if p.grad is not None
        ]
        if not reached:
            return
        views, parameters, gradients = zip(*reached, strict=True)
        torch._foreach_add_(views, gradients)
        for parameter in parameters:
            parameter.grad = None

    @torch.no_grad()
    def update(self) -> Tensor:
        """Applies the gradients: clipping, one step of the optimizer, one of the moving average.

        Returns:
            The norm of the gradient before clipping, 0-dimensional.
        """
        self.accumulate()
        settings, gradient = self.settings, self.gradients.vector
        norm = torch.linalg.vector_norm(gradient)
        if settings.clip:
            gradient.mul_((settings.clip / (norm + 1e-6)).clamp(max=1.0))
        torch._fused_adamw_(
            [self.masters.vector], [gradient], [self.first_moment.vector], [self.second_moment.vector], [],
            [self.updates.add_(1)], lr=settings.learning_rate(self.step), beta1=settings.betas[0], beta2=settings.betas[1],
            weight_decay=settings.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        gradient.zero_()
        self.average.vector.lerp_(self.masters.vector, 1 - settings.ema_memory(self.step))
        self.renew()
        self.step += 1
        return norm

    @torch.no_grad()
    def renew(self) -> None:
        """Brings the masters to where the network computes in coarser numbers."""
        if self._copies:
            copies, masters = zip(*self._copies, strict=True)
            torch._foreach_copy_(copies, masters)

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return bool(torch.isfinite(self.masters.vector).all())

    def _slots(self) -> Iterator[tuple[str, Tensor]]:
        held = {
            "weights": self.masters, "ema": self.average,
            "first_moment": self.first_moment, "second_moment": self.second_moment,
        }  # fmt: skip
        for prefix, flat in held.items():
            yield from flat.named(prefix).items()
        yield "updates", self.updates

    def tensors(self) -> dict[str, Tensor]:
        """All of the state but the step, by name."""
        return {name: tensor.cpu().contiguous() for name, tensor in self._slots()}

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Takes the state of another run of the same network.

        Raises:
            RunFolderError: The tensors are those of another network.
        """
        slots = dict(self._slots())
        tensors = _of_today(tensors)
        wrong = [n for n in slots if n not in tensors or slots[n].shape != tensors[n].shape] or set(tensors) - set(
            slots
        )
        if wrong:
            raise RunFolderError(
                f"the checkpoint holds the weights of another network (it differs in {min(wrong)}): use another --out"
            )
        with torch.no_grad():
            for name, slot in slots.items():
                slot.copy_(tensors[name])
        self.renew()
        self.step = step

    def ema_weights(self) -> dict[str, Tensor]:
        """The moving average of the weights and the network's buffers, by the network's own names; copies, in float32."""
        averaged = dict(zip(self.names, self.average.views, strict=True))
        wide = self.masters.vector.dtype
        weights = {n: averaged.get(n, value).detach() for n, value in self.network.state_dict().items()}
        return {n: (v.to(wide) if v.is_floating_point() else v).clone() for n, v in weights.items()}


def _of_today(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoints of version 0.1 count the updates of every weight by itself, always alike."""
    counts = sorted(name for name in tensors if name.startswith("updates/"))
    kept = {name: tensor for name, tensor in tensors.items() if name not in counts}
    return {**kept, "updates": tensors[counts[0]]} if counts else kept


class Averaged:
    """A context in which the network of a run has the averaged weights."""

    def __init__(self, state: TrainState) -> None:
        self.state = state

    def __enter__(self) -> None:
        self.raw = self.state.masters.vector.clone()
        self._set(self.state.average.vector)

    def __exit__(self, *_: object) -> None:
        self._set(self.raw)

    def _set(self, vector: Tensor) -> None:
        with torch.no_grad():
            self.state.masters.vector.copy_(vector)
            self.state.renew()
