"""The gradient of the loss of some examples: by the network's own derivative where it has one written out, else by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoisers.base import Denoiser
from ..nn.base import ByHand, Network
from ..objectives.base import Objective, Prepared
from ..objectives.mse import MSEObjective, preconditioned
from ..randomness import address, torch_seeded
from .state import TrainState


class Gradient:
    """Brings gradients of the loss into the state of a run.

    Args:
        objective: The loss.
        denoiser: Whose network is trained.
        state: Where gradients are summed.
        seed: Of what a network drops.
    """

    def __init__(self, objective: Objective, denoiser: Denoiser, state: TrainState, seed: int) -> None:
        self.objective, self.denoiser, self.state, self.seed = objective, denoiser, state, seed
        self.by_hand = _by_hand(objective, denoiser, state)

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """Adds the gradient of `scale` times the sum of the losses.

        Args:
            examples: Of the state's step.
            scale: One over the batch size, for a mean.
            first: Where they begin in the batch.

        Returns:
            The loss of every example, shape (B,), without a graph.
        """
        if self.by_hand is None:
            key = address(self.seed, "network", self.state.step, first)
            with torch_seeded(key, examples.inputs.device):  # what the network drops
                losses = self.objective.losses(self.denoiser, examples)
            (losses.sum() * scale).backward()
            self.state.accumulate()
            return losses.detach()
        assert isinstance(self.objective, MSEObjective)
        inputs, dtype = examples.inputs, self.state.masters.vector.dtype
        with torch.no_grad():
            answer = self.by_hand.forward(inputs.to(dtype), examples.noise_level, examples.cond).to(inputs.dtype)
            losses, slopes = self.objective.slopes(answer, examples)
            self.by_hand.back(slopes.mul_(scale).to(dtype))
        return losses


def _by_hand(objective: Objective, denoiser: Denoiser, state: TrainState) -> ByHand | None:
    network = preconditioned(denoiser).network
    if type(objective) is not MSEObjective or not isinstance(network, Network) or network is not state.network:
        return None
    return network.by_hand(dict(zip(state.names, state.gradients.views, strict=True)))
