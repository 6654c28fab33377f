"""The gradient of the loss of some examples: by the network's own derivative where it has one written out, else by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoisers.base import Denoiser
from ..nn.base import ByHand, Network
from ..nn.dropout import address_dropout
from ..objectives.base import Objective, Prepared
from ..objectives.companion import Companion
from ..objectives.mse import MSEObjective, network_inputs, preconditioned
from ..randomness import address, torch_seeded
from ..shapes import over
from .state import TrainState


class Gradient:
    """Brings gradients of the loss into the state of a run.

    Args:
        objective: The loss.
        denoiser: Whose network is trained.
        state: Where gradients are summed.
        seed: Of what a network drops.
        companion: What goes beside the network, and has a say in what is minimised.
    """

    def __init__(
        self, objective: Objective, denoiser: Denoiser, state: TrainState, seed: int, companion: Companion | None = None
    ) -> None:
        self.objective, self.denoiser, self.state, self.seed = objective, denoiser, state, seed
        self.companion = companion or Companion()
        self.derivative = _written_out(objective, denoiser, state)

    def add(self, examples: Prepared, scale: float, first: int = 0) -> Tensor:
        """Adds the gradient of `scale` times the sum of what is minimised, which for most objectives is the losses.

        Args:
            examples: Of the state's step.
            scale: One over the batch size, for a mean.
            first: Where they begin in the batch.

        Returns:
            The loss of every example, shape (B,), without a graph.
        """
        return self._autograd(examples, scale, first) if self.derivative is None else self._written(examples, scale)

    def _autograd(self, examples: Prepared, scale: float, first: int) -> Tensor:
        key = address(self.seed, "network", self.state.step)
        address_dropout(self.denoiser, key, first)
        with torch_seeded(address(self.seed, "network", self.state.step, first), examples.inputs.device):
            return self.learn(examples, scale)

    def learn(self, examples: Prepared, scale: float) -> Tensor:
        """What `add` does by autograd, with random numbers as they come."""
        losses = self.objective.losses(self.denoiser, examples)
        (self.companion.minimised(losses, examples).sum() * scale).backward()
        self.state.accumulate()
        return losses.detach()

    def _written(self, examples: Prepared, scale: float) -> Tensor:
        assert isinstance(self.objective, MSEObjective)
        assert self.derivative is not None
        wide = self.state.masters.vector.dtype
        with torch.no_grad():
            inputs = network_inputs(self.denoiser, examples)
            answer = self.derivative.forward(inputs.to(wide), examples.noise_level, examples.cond).to(inputs.dtype)
            losses, slopes = self.objective.slopes(answer, examples)
            self.derivative.back((slopes * self._weights(losses, examples, scale)).to(wide))
        return losses

    def _weights(self, losses: Tensor, examples: Prepared, scale: float) -> float | Tensor:
        """The derivative of `scale` times the sum of what is minimised to each loss."""
        if self.companion.uncertainty is None and examples.draws.importance is None:
            return scale
        losses = losses.detach().requires_grad_()
        with torch.enable_grad():
            (self.companion.minimised(losses, examples).sum() * scale).backward()
        assert losses.grad is not None
        return over(losses.grad, examples.target)


def _written_out(objective: Objective, denoiser: Denoiser, state: TrainState) -> ByHand | None:
    network = preconditioned(denoiser).network
    if type(objective) is not MSEObjective or not isinstance(network, Network) or network is not state.network:
        return None
    return network.by_hand(dict(zip(state.names, state.gradients.views, strict=True)))
