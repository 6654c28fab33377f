"""Boxes and maps as conditions: planes of the size of what the model works on, which its network sees beside the noisy data."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data.regions import NO_BOX, NOTHING, Regions, renumbered
from ..errors import ShapeError
from ..nn.base import Condition, Network

PLANES = "planes"
"""By which name a condition holds them."""
Scaling = Literal["area", "nearest"]


@dataclass(frozen=True)
class RegionConditioning:
    """How a model understands what stands where.

    Of boxes there is a plane for each class, the share of every cell that the box covers which covers the most of it, one with the
    outlines of all, so that boxes of a class that meet stay apart, and one that says that boxes are asked for at all. Of maps
    there is a plane for each class, and one of the latter kind. What asks for nothing is zero everywhere.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Section 3.3 and Appendix D, for maps
        beside latents, https://arxiv.org/abs/2112.10752
        High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (Wang et al., 2018), Section 3.3, for
        outlines, https://arxiv.org/abs/1711.11585

    Args:
        boxes: The names of the classes of boxes; None where none can be asked for.
        map: The names of the classes of maps; None where none can be asked for.
        scaling: How maps come to the size of what the model works on: "area" gives the share of a cell that each class has,
            "nearest" the class in its middle.
    """

    boxes: tuple[str, ...] | None = None
    map: tuple[str, ...] | None = None
    scaling: Scaling = "area"

    @property
    def planes(self) -> int:
        """How many there are."""
        return self._of_boxes + (0 if self.map is None else len(self.map) + 1)

    @property
    def _of_boxes(self) -> int:
        return 0 if self.boxes is None else len(self.boxes) + 2

    def encode(self, regions: Regions, size: tuple[int, int]) -> Tensor:
        """The planes of N samples, shape (N, planes, *size); zero for what the regions say nothing of.

        Args:
            regions: Of the samples.
            size: Height and width of what the model works on, in cells.

        Raises:
            DataError: They hold a class that the model does not know.
        """
        count = len(next(iter(regions.tensors().values())))
        parts = []
        if self.boxes is not None:
            boxes = regions.boxes
            if boxes is None:
                parts.append(torch.zeros(count, self._of_boxes, *size))
            else:
                numbers = renumbered(boxes[..., 0], regions.box_names, self.boxes, NO_BOX)
                parts.append(box_planes(numbers.long(), boxes[..., 1:], len(self.boxes), size))
        if self.map is not None:
            if regions.maps is None:
                parts.append(torch.zeros(count, len(self.map) + 1, *size))
            else:
                numbers = renumbered(regions.maps, regions.map_names, self.map, NOTHING)
                parts.append(map_planes(numbers, len(self.map), size, self.scaling))
        return torch.cat(parts, dim=1)

    def without(self, planes: Tensor, no_boxes: Tensor, no_map: Tensor) -> Tensor:
        """The planes with some samples' boxes, and some samples' maps, taken away.

        Args:
            planes: Shape (N, planes, H, W).
            no_boxes: Of which samples, shape (N,), bool.
            no_map: The same.
        """
        kept = torch.ones(planes.shape[:2], dtype=torch.bool)
        kept[:, : self._of_boxes] &= ~no_boxes[:, None]
        kept[:, self._of_boxes :] &= ~no_map[:, None]
        return planes * kept[:, :, None, None]

    def around(self, network: Network) -> RegionNetwork:
        """A network that sees the planes, of one whose input has room for them after the noisy data."""
        return RegionNetwork(network, self)

    def describe(self) -> dict[str, Any]:
        """Plain values that `RegionConditioning.of` reads; part of what a model can be asked for."""
        boxes = {} if self.boxes is None else {"boxes": list(self.boxes)}
        return boxes | ({} if self.map is None else {"map": {"classes": list(self.map), "scaling": self.scaling}})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RegionConditioning | None:
        """What `describe` said, among other things; None where it said nothing."""
        boxes, maps = values.get("boxes"), values.get("map")
        if boxes is None and maps is None:
            return None
        return cls(
            None if boxes is None else tuple(map(str, boxes)),
            None if maps is None else tuple(map(str, maps["classes"])),
            "area" if maps is None else maps["scaling"],
        )


def box_planes(numbers: Tensor, ends: Tensor, classes: int, size: tuple[int, int]) -> Tensor:
    """The planes of boxes.

    Args:
        numbers: Their classes, shape (N, most), int64, `NO_BOX` for none.
        ends: Left, top, right, bottom as shares of the sides, shape (N, most, 4).
        classes: How many there are.
        size: Height and width, in cells.

    Returns:
        Shape (N, classes + 2, *size): shares covered by the box of each class that covers the most, outlines in [0, 1], ones.
    """
    height, width = size
    across, down = _covered(ends[..., 0], ends[..., 2], width), _covered(ends[..., 1], ends[..., 3], height)
    there = (numbers != NO_BOX)[..., None, None]
    cover = down[..., :, None] * across[..., None, :] * there  # (N, most, height, width)
    planes = torch.zeros(len(numbers), classes, height, width)
    index = numbers.clamp(min=0)[..., None, None].expand_as(cover)
    planes.scatter_reduce_(1, index, cover, "amax")
    edge = _edges(down)[..., :, None] | _edges(across)[..., None, :]
    outlines = ((cover > 0) & edge).any(dim=1, keepdim=True).to(planes)
    return torch.cat([planes, outlines, torch.ones_like(outlines)], dim=1)


def _covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """The share of each of so many cells of [0, 1] that lies between two ends, shape (*low.shape, cells)."""
    at = torch.arange(cells, dtype=torch.float32)
    low, high = low[..., None] * cells, high[..., None] * cells
    return (torch.minimum(high, at + 1) - torch.maximum(low, at)).clamp(0, 1)


def _edges(covered: Tensor) -> Tensor:
    """The first and the last cell of which something is covered, bool, shape (..., cells)."""
    some = covered > 0
    before, after = nn.functional.pad(some, (1, 0))[..., :-1], nn.functional.pad(some, (0, 1))[..., 1:]
    return some & ~(before & after)


def map_planes(maps: Tensor, classes: int, size: tuple[int, int], scaling: Scaling) -> Tensor:
    """The planes of maps.

    Args:
        maps: Shape (N, H, W), uint8, `NOTHING` where nothing is known.
        classes: How many there are.
        size: Height and width, in cells.
        scaling: See `RegionConditioning`.

    Returns:
        Shape (N, classes + 1, *size): the share of a cell that each class has, and ones.
    """
    if scaling == "nearest":
        maps = nn.functional.interpolate(maps[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    shares = (maps[:, None] == torch.arange(classes).reshape(1, -1, 1, 1)).float()
    if scaling == "area":
        shares = nn.functional.adaptive_avg_pool2d(shares, size)
    return torch.cat([shares, torch.ones(len(maps), 1, *size)], dim=1)


class RegionNetwork(Network):
    """A network that sees planes beside the noisy data: any network, with more channels in.

    A condition may hold "planes", shape (B, planes, *size), as `RegionConditioning.encode` makes them; what asks for nothing are
    zeros.

    Args:
        network: Takes the planes as the last channels of its input.
        asks: How they are made.
    """

    def __init__(self, network: Network, asks: RegionConditioning) -> None:
        shape = (network.shape[0] - asks.planes, *network.shape[1:])
        super().__init__(shape, network.out_shape, network.num_classes, network.config)
        self.network, self.asks = network, asks
        self.any_size = network.any_size  # type: ignore[misc]
        self.registered_name = getattr(network, "registered_name", type(network).__name__)
        self.condition_keys = (*network.condition_keys, PLANES)

    @property
    def null_context(self) -> Tensor:  # type: ignore[override]
        """See `Network`; that of the inner network."""
        return self.network.null_context

    @property
    def null_pooled(self) -> Tensor:  # type: ignore[override]
        """See `Network`; that of the inner network."""
        return self.network.null_pooled

    def encode(self, regions: Regions) -> Tensor:
        """What this network sees of some samples, shape (N, planes, *size)."""
        height, width = self.shape[1:]
        return self.asks.encode(regions, (height, width))

    def null_condition(self, batch: int, device: torch.device | None = None, without: Container[str] = ()) -> Condition:
        """That of the network, and planes of zeros; see `Network.null_condition`."""
        planes = torch.zeros(batch, self.asks.planes, *self.shape[1:], device=device)
        return {**self.network.null_condition(batch, device, without), PLANES: planes}

    def forward(self, x: Tensor, noise_level: Tensor, cond: Condition | None = None) -> Tensor:
        """The raw prediction; see `Network.forward`."""
        self.check(x, noise_level)
        told = dict(cond or {})
        planes = told.pop(PLANES, None)
        wanted = (len(x), self.asks.planes, *x.shape[2:])
        if planes is None:
            planes = x.new_zeros(wanted)
        elif planes.shape != wanted:
            raise ShapeError(f"expected planes of shape {wanted}, got {tuple(planes.shape)}")
        out: Tensor = self.network(torch.cat([x, planes.to(x)], dim=1), noise_level, told or None)
        return out

    def remember(self, cond: Condition | None) -> Condition | None:
        """See `Network.remember`."""
        return self.network.remember(cond)

    def checkpointed_blocks(self) -> Sequence[nn.Module]:
        """Those of the network."""
        return self.network.checkpointed_blocks()


def region_network(network: nn.Module | None) -> RegionNetwork | None:
    """The network that sees planes within a denoiser's; None where none does."""
    inner = network if isinstance(network, RegionNetwork) else getattr(network, "network", None)
    return inner if isinstance(inner, RegionNetwork) else None
