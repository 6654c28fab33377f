"""How far pictures are from others as a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .features.base import Extractor


class PerceptualDistance:
    r"""The mean squared distance between what layers of a network say of each place, brought to length 1.

    .. math:: d(x, y) = \frac1L \sum_l \frac1{H_l W_l} \sum_{h, w} \lVert \hat f^l_{hw}(x) - \hat f^l_{hw}(y) \rVert^2

    Between 0 and 4. Gradients go through to both. The weights of channels that the paper learns from people are all one here, as
    in its baselines.

    References:
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), Equation 1,
        https://arxiv.org/abs/1801.03924

    Args:
        extractor: Whose layers are compared.

    Raises:
        IncompatibleParts: It has no layers that say something of places; told when it is first asked.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        network = getattr(extractor, "network", None)
        if isinstance(network, nn.Module):  # it never learns, and need not be differentiated by its weights
            network.requires_grad_(False)

    def on(self, device: torch.device) -> PerceptualDistance:
        """The same with its network on a device."""
        return PerceptualDistance(self.extractor.on(device))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of every sample to its partner, shape (B,).

        Args:
            x: In the units of the data, floats, shape (B, *shape).
            y: The same shape.
        """
        layers = self.extractor.maps(torch.cat([x, y]))
        found = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in (_unit(each).chunk(2) for each in layers)]
        return torch.stack(found).mean(0)


def _unit(maps: Tensor) -> Tensor:
    """Every place of length 1, shape (2 B, channels, *places); those where nothing is said stay 0."""
    return maps / maps.square().sum(1, keepdim=True).add(1e-10).sqrt()
