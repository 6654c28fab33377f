"""Weights laid out once as the processor wants them, for networks that only predict.

For every product oneDNN, the library that torch has for it, lays a weight out in blocks first, unless it is already. In training
weights change with every step. In sampling the same work is done again at every step, and where weights outnumber the places of the
data, as in the inner levels of a U-Net, it takes longer than the product itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .kernels.library import followed


class Packed:
    """A weight in blocks: those that the first data asks for, right for any other data too."""

    def __init__(self) -> None:
        self.blocks: Tensor | None = None

    def __deepcopy__(self, memo: object) -> Packed:
        return Packed()  # blocks cannot be copied, and are soon made again

    def convolve(self, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """What the layer gives, shape (B, out_channels, *size), for x of shape (B, channels, *size)."""
        around, stride, dilation = (list(each) for each in (layer.padding, layer.stride, layer.dilation))
        if self.blocks is None:
            weight = layer.weight.detach().contiguous()
            self.blocks = torch.ops.mkldnn._reorder_convolution_weight(
                weight, around, stride, dilation, layer.groups, list(x.shape)
            )
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.blocks, layer.bias, around, stride, dilation, layer.groups, "none", [], ""
        )
        return out

    def multiply(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """What the layer gives, shape (..., out), for x of shape (..., in)."""
        rows = x.reshape(-1, x.shape[-1])
        if self.blocks is None:
            self.blocks = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), len(rows))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.blocks, layer.bias, "none", [], "")
        return out.reshape(*x.shape[:-1], -1)


class Packable:
    """A layer whose weight can be packed."""

    weight: Tensor
    packed: Packed | None = None

    def takes_blocks(self, x: Tensor) -> bool:
        """Whether blocks do for this batch: nobody asks for gradients."""
        return (
            not torch.is_grad_enabled()
            and not followed()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.bfloat16
            and x.numel() > 0
        )


def pack(network: nn.Module) -> None:
    """Lays weights out in blocks, at the first prediction without gradients in bfloat16 on a CPU; elsewhere it does nothing.

    Weights stay as they are beside their blocks, which take as much memory once more, and gradients still go by them. Weights
    must not change any more.

    Args:
        network: What will predict only.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return
    for module in network.modules():
        if isinstance(module, Packable):
            module.packed = Packed()
