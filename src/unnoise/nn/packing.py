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
        return self._convolve(x, layer, layer.weight, layer.bias)

    def convolve_doubled(self, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """What a 3 x 3 layer gives of x with every place doubled in both directions, without making that.

        A result of even row and column sees 2 x 2 places of x, and sums of weights at them; others as many. As four layers of
        2 x 2 weights that is four ninths of the products.

        Args:
            x: Shape (B, channels, H, W).
            layer: Padded by one.

        Returns:
            Shape (B, out_channels, 2 H, 2 W).
        """
        channels, (height, width) = layer.out_channels, x.shape[2:]
        weight = None if self.blocks is not None else _of_doubled(layer.weight.detach())
        bias = None if layer.bias is None else layer.bias.repeat(4)
        every = self._convolve(x, layer, weight, bias).permute(0, 2, 3, 1)  # (B, H + 1, W + 1, 4 channels)
        out = x.new_empty(len(x), 2 * height, 2 * width, channels)
        for kind, part in enumerate(every.split(channels, dim=3)):
            row, column = divmod(kind, 2)
            out[:, row::2, column::2] = part[:, row : row + height, column : column + width]
        return out.permute(0, 3, 1, 2)

    def _convolve(self, x: Tensor, layer: nn.Conv2d, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        around, stride, dilation = (list(each) for each in (layer.padding, layer.stride, layer.dilation))
        if self.blocks is None:
            assert weight is not None
            self.blocks = torch.ops.mkldnn._reorder_convolution_weight(
                weight.detach().contiguous(), around, stride, dilation, layer.groups, list(x.shape)
            )
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.blocks, bias, around, stride, dilation, layer.groups, "none", [], ""
        )
        return out

    def multiply(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """What the layer gives, shape (..., out), for x of shape (..., in)."""
        rows = x.reshape(-1, x.shape[-1])
        if self.blocks is None:
            self.blocks = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous(), len(rows))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.blocks, layer.bias, "none", [], "")
        return out.reshape(*x.shape[:-1], -1)


def _of_doubled(weight: Tensor) -> Tensor:
    """The weights of the four layers of `convolve_doubled`, shape (4 out, in, 2, 2), of one of shape (out, in, 3, 3)."""

    def paired(w: Tensor) -> tuple[Tensor, Tensor]:
        """What results at even and at odd places see of two neighbours in the last dimension."""
        first, second, third = w.unbind(-1)
        return torch.stack([first, second + third], -1), torch.stack([first + second, third], -1)

    columns = paired(weight.float())
    kinds = [column.mT for row in range(2) for half in columns for column in [paired(half.mT)[row]]]
    return torch.cat(kinds).to(weight.dtype)


class Packable:
    """A layer whose weight can be packed."""

    packed: Packed | None = None

    def takes_blocks(self, x: Tensor) -> bool:
        """Whether blocks do for this batch: bfloat16 on a CPU, channels of pictures innermost, and nobody asks for gradients."""
        return (
            not torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == torch.bfloat16
            and (x.ndim != 4 or x.is_contiguous(memory_format=torch.channels_last))
            and x.numel() > 0
            and not followed()
        )


def packs() -> bool:
    """Whether weights can be packed on this machine: by this torch, for a processor with wide enough vectors for bfloat16."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(network: nn.Module) -> None:
    """Lays weights out in blocks, at the first prediction without gradients in bfloat16 on a CPU; elsewhere it does nothing.

    Weights stay as they are beside their blocks, which take as much memory once more, and gradients still go by them. Weights
    must not change any more.

    Args:
        network: What will predict only.
    """
    if not packs():
        return
    for module in network.modules():
        if isinstance(module, Packable):
            module.packed = Packed()
