"""Inception: the features that most published distances are in, from weights that a person has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...data.base import Dataset, Spec
from ...options import option
from .base import Extractor, FeatureSource, Progress, extractors
from .digest import digest_of
from .inception_network import InceptionV3
from .looking import check_pictures, is_picture, refuse_unless_picture
from .resize import in_colour, resized
from .weights import asked, check_device, fill, first_there, read_weights, torch_hub_folder, weights_folder

NAMES = (
    "pt_inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.safetensors",
    "weights-inception-2015-12-05-6726825d.pth",
)
SIDE = 299
Resize = Literal["legacy", "clean"]


@extractors.register("inception")
@dataclass(frozen=True)
class InceptionFeatures(FeatureSource):
    """The 2,048 numbers of the last pool of InceptionV3 of 2015, from converted weights in a local file.

    Pictures become colour, 299 x 299 and (x - 128) / 128, in [-1, 1). "legacy" resizes bilinearly as TensorFlow 1 does,
    with the corners aligned and no wider filter, which is what torch-fidelity does and what most published numbers were
    measured with; "clean" resizes as clean-fid does, by Pillow's bicubic filter on floats, unrounded.

    The weights are `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid (in torch-fidelity the same tensors), or the same
    as .safetensors; they are looked for in the user's cache of unnoise under `weights` and where torch hub keeps its own.

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500;
        On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022), https://arxiv.org/abs/2104.11222
    """

    path: str = option("", help="the file of weights; empty looks in the user's caches")
    resize: Resize = option(
        "legacy", help="how pictures get to 299 x 299: as TensorFlow 1 did it, or as clean-fid does"
    )
    device: str = option("cpu", help="where the network runs: cpu, cuda or mps")

    def suits(self, spec: Spec) -> bool:
        """Whether samples are pictures of 1, 3 or 4 channels."""
        return is_picture(spec)

    def prepare(self, data: Dataset, progress: Progress | None = None) -> InceptionExtractor:
        """See `FeatureSource.prepare`."""
        refuse_unless_picture(data.spec, "inception")
        device = check_device(self.device)
        places = (
            [Path(self.path).expanduser()]
            if self.path
            else [folder / name for folder in (weights_folder(), torch_hub_folder()) for name in NAMES]
        )
        file = first_there(places, "the weights of Inception are")
        network = InceptionV3()
        fill(network, read_weights(file), file)
        return InceptionExtractor(network, self.resize, file.name, device)


class InceptionExtractor(Extractor):
    """InceptionV3 with what stands before it.

    Args:
        network: With its weights.
        resize: See `InceptionFeatures`.
        source: The name of the file.
        device: Where the network runs.
    """

    def __init__(self, network: InceptionV3, resize: Resize, source: str, device: str = "cpu") -> None:
        self.network = network.to(device)
        self.device: str | torch.device = device
        self.legacy = resize == "legacy"
        self.dim = 2048
        self.resize = f"{'TensorFlow 1 bilinear' if self.legacy else 'Pillow bicubic'} to {SIDE} x {SIDE}"
        steps = {
            "name": "inception",
            "resize": self.resize,
            "range": "(x - 128) / 128",
            "colour": "grey x 3, white below",
        }
        self.hash = digest_of(steps, network.state_dict())
        self.about = {"name": "inception", "weights": source, "trained on": "ImageNet, TensorFlow 2015-12-05"}

    def __call__(self, x: Tensor) -> Tensor:
        """See `Extractor.__call__`."""
        check_pictures(x)
        return asked(self._look, x)

    def _look(self, pictures: Tensor) -> Tensor:
        return self.network(self._seen(pictures))

    def _seen(self, pictures: Tensor, whole: bool = True) -> Tensor:
        pixels = resized(in_colour(pictures, whole), SIDE, SIDE, "tensorflow" if self.legacy else "bicubic")
        return ((pixels - 128) / 128).to(self.device)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `Extractor.maps`: the ends of its five sizes."""
        return self.network.maps(self._seen(x, whole=False))
