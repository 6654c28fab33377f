"""Pictures into a vision transformer: what DINOv2 and CLIP do before and after it."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from .base import Extractor
from .digest import digest_of
from .looking import check_pictures
from .resize import centre_crop, in_colour, resized
from .vision_transformer import VisionTransformer
from .weights import asked


class TransformerExtractor(Extractor):
    """A vision transformer with what stands before and after it.

    Args:
        network: With its weights.
        name: Of the extractor.
        side: Of the square of pixels that the network sees.
        mean: What is taken from each channel of pixels in [0, 1], three numbers.
        std: What each is then divided by, three numbers.
        source: The name of the folder that the weights came from.
        device: Where the network runs.
        unit: Whether features are brought to length 1.
    """

    def __init__(
        self,
        network: VisionTransformer,
        name: str,
        side: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        source: str,
        device: str = "cpu",
        unit: bool = False,
    ) -> None:
        self.network = network.to(device)
        self.device: str | torch.device = device
        self.side = side
        self.mean, self.std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (mean, std))
        self.unit = unit
        self.dim = network.dim
        self.resize = f"Pillow bicubic to {side}, middle {side} x {side}"
        steps = {
            "name": name,
            "resize": self.resize,
            "mean": mean,
            "std": std,
            "unit": unit,
            "colour": "grey x 3, white below",
        }
        self.hash = digest_of({**steps, **asdict(network.sizes)}, network.state_dict())
        self.about = {"name": name, "weights": source}

    def __call__(self, x: Tensor) -> Tensor:
        """See `Extractor.__call__`."""
        check_pictures(x)
        rows = asked(lambda some: self.network(self.seen(some).to(self.device)), x)
        return rows / rows.norm(dim=1, keepdim=True) if self.unit else rows

    def seen(self, pictures: Tensor) -> Tensor:
        """Pictures as the network sees them, shape (B, 3, side, side)."""
        height, width = pictures.shape[2:]
        short = min(height, width)
        size = max(self.side, self.side * height // short), max(self.side, self.side * width // short)
        return self._centred(centre_crop(resized(in_colour(pictures), *size, "bicubic", whole=True), self.side))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `Extractor.maps`: each quarter of its layers, of the whole picture, which is brought to whole patches.

        Nothing is cut off and nothing rounded, unlike for features: every pixel has a gradient.
        """
        short, patch = min(x.shape[2:]), self.network.sizes.patch
        height, width = (self.side * side // short // patch * patch for side in x.shape[2:])
        pixels = resized(in_colour(x.to(self.device), whole=False), height, width, "bicubic")
        return self.network.maps(self._centred(pixels))

    def _centred(self, pixels: Tensor) -> Tensor:
        return (pixels / 255 - self.mean.to(pixels.device)) / self.std.to(pixels.device)
