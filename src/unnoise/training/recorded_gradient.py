"""The gradient of a loss by operations that a GPU recorded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..denoisers.base import Denoiser
from ..nn.dropout import Dropout
from ..objectives.base import Draws, Objective, Prepared
from ..objectives.companion import Companion
from ..objectives.mse import MSEObjective, preconditioned
from .gradient import Gradient
from .recording import Recording

RANDOM = Dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout
"""Modules that draw random numbers while a network is trained."""


class RecordedGradient:
    """Brings the gradients of a loss into the state of a run as `Gradient` does, by a recording for every size of batch.

    Args:
        plain: What is recorded, of a network that draws no random numbers of its own.
    """

    def __init__(self, plain: Gradient) -> None:
        self.plain, self.state = plain, plain.state
        self._known: dict[object, tuple[list[Tensor], Recording[Tensor]]] = {}

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """See `Gradient.add`."""
        key = tuple((name, value.shape, value.dtype) for name, value in _tensors(examples)), scale
        if key not in self._known:
            held = self._held(examples)
            recording = Recording(lambda: self.plain.learn(held, scale), held.inputs.device)
            self._known[key] = [value for _, value in _tensors(held)], recording
        places, recording = self._known[key]
        for place, (_, value) in zip(places, _tensors(examples), strict=True):
            place.copy_(value)
        return recording().clone()

    def _held(self, read: Prepared) -> Prepared:
        """Room for examples of this size; nothing of how they were drawn, which a loss that is recorded does not look at."""
        nothing = torch.empty(0)
        return Prepared(
            read.inputs.clone(),
            read.noise_level.clone(),
            None if read.cond is None else {name: value.clone() for name, value in read.cond.items()},
            read.target.clone(),
            read.weight.clone(),
            Draws(nothing, nothing, nothing, None),
        )


def recordable(gradient: Gradient) -> bool:
    """Whether a gradient may be recorded: it is worked out by autograd and by one process, and always alike."""
    alone = gradient.derivative is None and gradient.state.processes.count == 1
    return alone and always_alike(gradient.denoiser, gradient.objective, gradient.companion)


def always_alike(denoiser: Denoiser, objective: Objective, companion: Companion) -> bool:
    """Whether the same operations bring every gradient: no random number is drawn inside, and nothing is looked at on the way."""
    draws = any(isinstance(module, RANDOM) and not _idle(module) for module in preconditioned(denoiser).modules())
    alone = companion.uncertainty is None and companion.history is None and not denoiser.self_conditioned
    return type(objective) is MSEObjective and alone and not draws


def _idle(module: nn.Module) -> bool:
    return isinstance(module, Dropout) and module.share == 0


def _tensors(examples: Prepared) -> list[tuple[str, Tensor]]:
    """What the loss of some examples is made of, by name."""
    named = {name: getattr(examples, name) for name in ("inputs", "noise_level", "target", "weight")}
    return [*named.items(), *sorted((examples.cond or {}).items())]
