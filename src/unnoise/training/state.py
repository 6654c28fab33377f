"""The state of a run: weights, their moving average, the optimizer's memory, and the step. Nothing else is needed to go on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import RunFolderError
from .settings import TrainingSettings


class TrainState:
    """What changes while a model is trained.

    Args:
        network: Holds the weights that are trained.
        settings: Of the run.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings) -> None:
        self.network = network
        self.settings = settings
        self.step = 0
        self.names = [name for name, _ in network.named_parameters()]
        self.parameters = list(network.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )

    def update(self) -> None:
        """Applies the gradients: clipping, one step of the optimizer, one of the moving average."""
        settings = self.settings
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip, foreach=True)
        self.optimizer.param_groups[0]["lr"] = settings.learning_rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        memory = settings.ema_memory(self.step)
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - memory)  # type: ignore[arg-type]
        self.step += 1

    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def _slots(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter, ema in zip(self.names, self.parameters, self.ema, strict=True):
            yield f"weights/{name}", parameter.detach()
            yield f"ema/{name}", ema
            memory = self.optimizer.state[parameter]
            yield f"first_moment/{name}", memory["exp_avg"]
            yield f"second_moment/{name}", memory["exp_avg_sq"]
            yield f"updates/{name}", memory["step"]

    def _ready(self) -> None:
        """Makes the optimizer's memory before its first step, as the optimizer would."""
        for parameter in self.parameters:
            if not self.optimizer.state[parameter]:
                self.optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }

    def tensors(self) -> dict[str, Tensor]:
        """All of the state but the step, by name."""
        self._ready()
        return {name: tensor.cpu().contiguous() for name, tensor in self._slots()}

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Takes the state of another run of the same network.

        Raises:
            RunFolderError: The tensors are those of another network.
        """
        self._ready()
        slots = dict(self._slots())
        if set(slots) != set(tensors) or any(slots[name].shape != tensors[name].shape for name in slots):
            raise RunFolderError("the checkpoint holds the weights of another network: use another --out")
        with torch.no_grad():
            for name, slot in slots.items():
                slot.copy_(tensors[name])
        self.step = step

    def ema_weights(self) -> dict[str, Tensor]:
        """The moving average of the weights and the network's buffers, by the network's own names; copies."""
        averaged = dict(zip(self.names, self.ema, strict=True))
        return {name: averaged.get(name, value).detach().clone() for name, value in self.network.state_dict().items()}
