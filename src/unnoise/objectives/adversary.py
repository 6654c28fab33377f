"""An adversary that learns to tell what an autoencoder makes from real data, and what the autoencoder does about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import RunFolderError
from ..nn.patch_discriminator import PatchDiscriminator
from ..options import Checked, option
from .companion import Companion

_LEAST = 1e-4  # added to the norm that is divided by, as in the authors' code
_MOST = 1e4


@dataclass(frozen=True)
class AdversarialSettings(Checked):
    """How a patch discriminator has its say."""

    weight: float = option(0.5, help="how much it counts, as a share of the gradient of the other terms", low=0.0)
    start: int = option(1000, help="the step at which it begins to learn, and has its say one later", low=0)
    rate: float = option(1.0, help="its learning rate, as a share of the autoencoder's", low=0.0)
    width: int = option(64, help="channels of its first layer", low=4)
    layers: int = option(2, help="layers of it that halve sizes: how large its patches are", low=1, high=5)


class Adversary(Companion):
    r"""A patch discriminator with the hinge loss, trained beside the autoencoder by Adam.

    It counts as much as keeps its gradient at the last layer in proportion to that of the other terms:

    .. math:: \lambda = \frac{\lVert \nabla_L \mathcal L_{rec} \rVert}{\lVert \nabla_L \mathcal L_{GAN} \rVert + \delta}

    with both gradients of the step before, over its whole batch, so that neither micro batches nor processes change it.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), Equation 7, https://arxiv.org/abs/2012.09841

    Args:
        settings: How it has its say.
        data_shape: Of one sample.
        last: The shape of the last layer's weight.
        seed: Of its own weights.
    """

    learned_name = "adversary"

    def __init__(
        self, settings: AdversarialSettings, data_shape: tuple[int, ...], last: tuple[int, ...], seed: int = 0
    ) -> None:
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = PatchDiscriminator(len(data_shape) - 1, data_shape[0], settings.width, settings.layers)
        super().__init__(self.discriminator, betas=(0.5, 0.9))
        self.balance = torch.zeros(())
        self._slopes = [torch.zeros(last), torch.zeros(last)]  # of the other terms, and of its own, at the last layer

    @property
    def sums(self) -> list[Tensor]:
        """See `Companion.sums`."""
        return self._slopes

    def to(self, device: torch.device) -> Adversary:
        """See `Companion.to`."""
        super().to(device)
        self.balance = self.balance.to(device)
        self._slopes = [slope.to(device) for slope in self._slopes]
        return self

    def active(self, step: int) -> bool:
        """Whether it takes part in the update after so many."""
        return step >= self.settings.start

    def objection(self, made: Tensor) -> Tensor:
        """How unreal each sample looks, before it is weighed, shape (B,); made has shape (B, *data_shape)."""
        return -self.discriminator(made).flatten(1).mean(1)

    def weigh(self, rest: Tensor, objections: Tensor, last: Tensor) -> Tensor:
        """What is added to what is minimised, 0-dimensional; notes the slopes that the weight of the next step follows.

        Args:
            rest: The sum of the other terms, but for those that do not reach the last layer.
            objections: Shape (B,), with the same scale.
            last: The weight of the last layer.
        """
        for total, what in zip(self._slopes, (rest, objections.sum()), strict=True):
            (slope,) = torch.autograd.grad(what, last, retain_graph=True)
            total += slope.to(total)
        return self.settings.weight * self.balance * objections.sum()

    def learn(self, real: Tensor, made: Tensor, scale: float) -> None:
        """Adds the gradient of the discriminator's own loss.

        Args:
            real: Shape (B, *data_shape).
            made: The same, by the autoencoder.
            scale: One over the batch size.
        """
        doubt = functional.relu(1 - self.discriminator(real.detach())) + functional.relu(
            1 + self.discriminator(made.detach())
        )
        (scale / 2 * doubt.flatten(1).mean(1).sum()).backward()

    def tensors(self) -> dict[str, Tensor]:
        """See `Companion.tensors`."""
        return {**super().tensors(), "balance": self.balance.cpu()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Companion.restore`."""
        if "balance" not in tensors:
            raise RunFolderError("the checkpoint is that of another objective: use another --out")
        super().restore(tensors)
        self.balance.copy_(tensors["balance"])
        for slope in self._slopes:
            slope.zero_()

    @torch.no_grad()
    def update(self, step: int, learning_rate: float) -> None:
        """See `Companion.update`."""
        if not self.active(step - 1):
            return
        super().update(step, learning_rate * self.settings.rate)
        rest, own = (torch.linalg.vector_norm(slope) for slope in self._slopes)
        self.balance.copy_((rest / (own + _LEAST)).clamp(max=_MOST))
        for slope in self._slopes:
            slope.zero_()
