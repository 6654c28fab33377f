"""What tells labels of noisy data: the classifier of classifier guidance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.base import Network
from ..nn.encoder import UNetEncoder
from ..nn.mlp import MLP, MLPConfig
from ..nn.unet import UNetConfig
from ..options import build, plain
from ..process.base import Schedule
from ..shapes import over, per_sample

NETWORKS: dict[str, type[MLP] | type[UNetEncoder]] = {"mlp": MLP, "encoder": UNetEncoder}


class Classifier(nn.Module, ABC):
    """How probable every label is, given noisy data.

    Args:
        class_names: Of the labels, in the order of their numbers.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The log-probability of every label.

        Args:
            x_t: Noisy data in the space of the model, shape (B, ...).
            t: Its time, shape () or (B,).
            schedule: Alpha and sigma.

        Returns:
            Shape (B, number of labels).
        """

    def slope(self, x_t: Tensor, t: Tensor, schedule: Schedule, label: Tensor) -> Tensor:
        """The gradient of the log-probability of a label in x_t; 0 for the null label, the number after the last.

        Args:
            x_t: Shape (B, ...).
            t: Shape () or (B,).
            schedule: Alpha and sigma.
            label: Shape (B,).

        Returns:
            Shape of x_t.
        """
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            said = self(x, t, schedule)
            asked = label.to(said.device)
            chosen = said.gather(1, asked.clamp(max=len(self.class_names) - 1)[:, None])[:, 0]
            (slope,) = torch.autograd.grad(torch.where(asked < len(self.class_names), chosen, 0.0).sum(), x)
        return slope


class NoisyClassifier(Classifier):
    r"""A network that was trained on noisy data.

    It sees noisy data scaled to unit variance, and as its noise level the angle between signal and noise,
    :math:`\tfrac{2000}{\pi} \arctan(\sigma / (\alpha s))`: nothing but the ratio of the two, so that it serves models on any
    schedule.

    Args:
        shape: Of one sample in the space of the model.
        class_names: Of the labels.
        sigma_data: s, the standard deviation of the clean data.
        network: "mlp", "encoder" (for sequences, images and videos), or None for that which suits the shape.
        options: Of the network, where they are not the defaults.

    Raises:
        IncompatibleParts: The network cannot work on data of this shape.
        BadOption: An option of the network is wrong.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        class_names: tuple[str, ...],
        sigma_data: float = 1.0,
        network: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(class_names)
        self.shape, self.sigma_data = tuple(shape), float(sigma_data)
        self.kind = ("encoder" if len(shape) > 1 else "mlp") if network is None else network
        kind = NETWORKS[self.kind]
        config: Any = build(kind.Config, {**plain(_default(self.kind, self.shape)), **(options or {})}, "network")
        self.network: Network = kind(self.shape, (len(self.class_names),), 0, config)

    def describe(self) -> dict[str, Any]:
        """Plain values, of which `NoisyClassifier(**values)` is made with fresh weights."""
        return {
            "shape": list(self.shape),
            "class_names": list(self.class_names),
            "sigma_data": self.sigma_data,
            "network": self.kind,
            "options": plain(self.network.config),
        }

    def forward(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """See `Classifier.forward`.

        Raises:
            ShapeError: The samples have another shape than those that it was trained on.
        """
        signal, noise = schedule.alpha(t) * self.sigma_data, schedule.sigma(t)
        level = per_sample(torch.atan2(noise, signal) * (2000 / math.pi), x_t)
        scaled = x_t * over((signal**2 + noise**2).rsqrt(), x_t)
        first = next(self.network.parameters())
        said = self.network(scaled.to(first.dtype), level.to(first.device, torch.float32))
        return said.to(x_t.dtype).log_softmax(1)


def _default(kind: str, shape: tuple[int, ...]) -> MLPConfig | UNetConfig:
    if kind == "mlp":
        return MLPConfig()
    levels = min(3, 1 + int(math.log2(max(1, min(shape[1:], default=1)))))
    return UNetConfig(width=32, multipliers=(1, 2, 2)[:levels], blocks=1)
