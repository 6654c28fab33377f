"""The recipe of an autoencoder, whose latents a diffusion model can then work on."""

from __future__ import annotations

from dataclasses import dataclass

from ..evaluation.features.base import FeatureSource, extractors
from ..evaluation.features.own import OwnFeatures
from ..nn.autoencoder import AutoencoderConfig
from ..objectives.reconstruction import ReconstructionLoss
from ..options import option
from .any_recipe import AnyRecipe


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(AnyRecipe):
    """Everything that a training run of an autoencoder depends on."""

    kind = "autoencoder"
    sections = (
        "description", "seed", "data", "autoencoder", "loss", "features", "training", "machine", "tracking",
    )  # fmt: skip

    autoencoder: AutoencoderConfig = option(
        AutoencoderConfig(), help="the network; sizes are divided by 2 between levels"
    )
    loss: ReconstructionLoss = option(ReconstructionLoss(), help="what it learns")
    features: FeatureSource = option(
        OwnFeatures(), help="whose layers the perceptual term compares: see `unnoise list features`", one_of=extractors
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.loss.check(self.autoencoder.variational)
