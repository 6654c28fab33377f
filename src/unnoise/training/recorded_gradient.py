"""The gradient of a loss by operations that a GPU recorded."""

from __future__ import annotations

from torch import Tensor

from ..nn.dropout import Dropout
from ..objectives.base import Prepared
from ..objectives.mse import MSEObjective
from .gradient import Gradient
from .recording import Recording


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
        read = examples._replace(draws=examples.draws._replace(cond=None, noisier=None))
        key = tuple((name, value.shape, value.dtype) for name, value in _tensors(read)), scale
        if key not in self._known:
            held = read._replace(
                inputs=read.inputs.clone(), noise_level=read.noise_level.clone(), target=read.target.clone(),
                weight=read.weight.clone(), cond=None if read.cond is None else {k: v.clone() for k, v in read.cond.items()},
            )  # fmt: skip
            recording = Recording(lambda: self.plain.learn(held, scale), held.inputs.device)
            self._known[key] = [value for _, value in _tensors(held)], recording
        places, recording = self._known[key]
        for place, (_, value) in zip(places, _tensors(read), strict=True):
            place.copy_(value)
        return recording().clone()


def recordable(gradient: Gradient) -> bool:
    """Whether the same operations bring every gradient: no random number is drawn inside, and nothing is looked at on the way."""
    state, companion = gradient.state, gradient.companion
    draws = any(isinstance(module, Dropout) and module.share > 0 for module in state.network.modules())
    plain = type(gradient.objective) is MSEObjective and gradient.derivative is None
    alone = companion.uncertainty is None and companion.history is None and not gradient.denoiser.self_conditioned
    return plain and alone and not draws and state.processes.count == 1


def _tensors(examples: Prepared) -> list[tuple[str, Tensor]]:
    """What the loss of some examples is made of, by name."""
    named = {name: getattr(examples, name) for name in ("inputs", "noise_level", "target", "weight")}
    return [*named.items(), *sorted((examples.cond or {}).items())]
