"""How well an autoencoder gives its data back: numbers over many pictures, and the worst of them to look at."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..codecs.autoencoder import AutoencoderCodec
from ..data.base import AnyDataset, Dataset, Progress
from ..errors import DataError
from ..evaluation.features.base import FeatureSource
from ..evaluation.features.own import OwnFeatures
from ..evaluation.intervals import Mean, mean_interval
from ..evaluation.perceptual import PerceptualDistance
from ..evaluation.reconstruction import psnr, ssim
from ..files import write_atomically
from ..pictures.pairs import closest_pairs
from ..randomness import address, normal_like
from .any_recipe import AnyRecipe
from .autoencoder import AutoencoderRecipe
from .codec_folder import read_codec
from .recipe import load_any_recipe, read_values
from .run_data import source_like

AT_ONCE = 64
WORST = 12
"""Pictures that are shown."""
MOST_LEARNED = 50_000
"""Samples that features are learned from."""
NOISES = (0.1, 0.2, 0.4)
"""Standard deviations of the noise that is added to latents, whose variance is one."""


@dataclass(frozen=True)
class Reconstruction:
    """How well pictures came back.

    Args:
        psnr: Peak signal-to-noise ratio of each picture, in decibels, shape (n,).
        ssim: Structural similarity of each, shape (n,).
        perceptual: Distance between features of each, shape (n,); None where nobody asked.
        noisy: The ratio of each where noise was added to its latents, by the noise's standard deviation. It falls fast where
            things that look different are close in the space of latents, which a diffusion model will mistake for each other.
        worst: A picture of those with the lowest ratio, beside what they came back as.
        facts: What was judged, as plain values.
    """

    psnr: Tensor
    ssim: Tensor
    perceptual: Tensor | None
    noisy: Mapping[float, Tensor]
    worst: Image.Image
    facts: Mapping[str, Any]

    @property
    def means(self) -> dict[str, Mean]:
        """Each number over all pictures, with its 95 % interval."""
        each = {"psnr": self.psnr, "ssim": self.ssim, "perceptual": self.perceptual}
        each |= {f"psnr with noise of {noise:g}": values for noise, values in self.noisy.items()}
        return {name: mean_interval(values) for name, values in each.items() if values is not None}

    def values(self) -> dict[str, Any]:
        """All of it as plain values."""
        told = {name: {"value": each.value, "low": each.low, "high": each.high} for name, each in self.means.items()}
        return {**self.facts, **told}

    def save(self, folder: str | Path) -> Path:
        """Writes `reconstruction.json` and `worst.png` into a folder, which is made if missing.

        Raises:
            OSError: The folder cannot be written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        self.worst.save(content, "PNG")
        write_atomically(place / "worst.png", content.getvalue())
        write_atomically(place / "reconstruction.json", (json.dumps(self.values(), indent=1) + "\n").encode())
        return place


def reconstruct(
    path: str | Path,
    data: str | None = None,
    *,
    n: int = 1000,
    features: FeatureSource | None = None,
    perceptual: bool = True,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Judges an autoencoder by pictures that it was not trained on, where there are some.

    Args:
        path: Its folder, the run around it, or a model that uses it.
        data: A folder of images, Parquet, NPY/NPZ, or a shipped data set's name; by default what its run held out, or else learned.
        n: Most pictures that are looked at.
        features: Whose layers the perceptual distance compares; by default those that the run learned with, or `own`.
        perceptual: Whether there is to be such a distance: features of one's own have to be learned first.
        device: Where; on the processor by default.
        progress: Told how far it is.

    Raises:
        ModelFolderError: There is no autoencoder.
        DataError: There is no data, or it is no pictures.
        IncompatibleParts: The autoencoder cannot work on such data, or the features have no layers to compare.
    """
    codec, described = read_codec(path)
    codec = codec if device is None else codec.on(device, torch.float32)
    recipe = _recipe_around(path)
    learned, judged = _data(path, data, recipe, progress)
    if judged.spec.kind != "image":
        raise DataError(f"expected pictures to judge an autoencoder by, got {judged.spec.kind} samples")
    codec.shape(judged.spec.shape)
    distance = None
    if perceptual:
        source = features or (recipe.features if isinstance(recipe, AutoencoderRecipe) else OwnFeatures())
        distance = PerceptualDistance(source.prepare(learned.part(MOST_LEARNED), progress))
        distance = distance if device is None else distance.on(device)
    some = judged.part(n)
    some = some.take(torch.arange(min(n, len(some))) * len(some) // min(n, len(some)))
    columns, made = _judged(codec, some, distance, progress)
    latents = codec.shape(judged.spec.shape)
    facts = {
        "codec": codec.hash,
        "data": judged.fingerprint(),
        "held_out": data is not None or judged is not learned,
        "n": len(some),
        "latents": list(latents),
        "values_to_one": round(some.x[0].numel() / math.prod(latents), 3),
        "trained": described.get("trained", {}).get("steps"),
    }
    perceptually = columns[2] if distance else None
    noisy = dict(zip(NOISES, columns[-len(NOISES) :], strict=True))
    return Reconstruction(columns[0], columns[1], perceptually, noisy, _worst(some.x, made, columns[0]), facts)


def _judged(
    codec: AutoencoderCodec, data: Dataset, distance: PerceptualDistance | None, progress: Progress | None
) -> tuple[list[Tensor], Tensor]:
    """Each number of each picture, and what the pictures came back as, as bytes."""
    rows, made = [], []
    for first in range(0, len(data), AT_ONCE):
        real = data.x[first : first + AT_ONCE]
        latents = codec.encode(real)
        back = _back(codec, latents)
        told = [psnr(back, real), ssim(back, real)]
        if distance is not None:
            with torch.no_grad():
                told.append(distance(back, real.float()).cpu().double())
        error = normal_like(address(0, "latents under noise"), range(first, first + len(real)), latents)
        told += (psnr(_back(codec, latents + noise * error), real) for noise in NOISES)
        rows.append(torch.stack(told))
        made.append(back.to(torch.uint8))
        if progress is not None:
            progress("reconstructing", min(first + AT_ONCE, len(data)), len(data))
    return list(torch.cat(rows, dim=1)), torch.cat(made)


def _back(codec: AutoencoderCodec, latents: Tensor) -> Tensor:
    """Pictures as numbers that bytes can hold."""
    return codec.decode(latents).round().clamp(0, 255)


def _worst(real: Tensor, made: Tensor, ratios: Tensor) -> Image.Image:
    order = ratios.argsort()[:WORST]
    captions = [f"{float(ratios[i]):.1f} dB" for i in order]
    return closest_pairs(real[order], made[order], captions, headings=("real", "came back"))


def _recipe_around(path: str | Path) -> AnyRecipe | None:
    """The recipe of the run around an autoencoder or a model; None where there is none."""
    places = (Path(path).expanduser() / "recipe.yaml", Path(path).expanduser().resolve().parent / "recipe.yaml")
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else load_any_recipe(read_values(found))


def _data(
    path: str | Path, data: str | None, recipe: AnyRecipe | None, progress: Progress | None
) -> tuple[AnyDataset, AnyDataset]:
    """What features are learned from, and what is judged."""
    if data is None and recipe is None:
        raise DataError(f"nothing stands beside {path} that says what it was trained on: give --data")
    own = None if recipe is None else recipe.data.load(progress)
    other = None if data is None else source_like(data, None).load(progress)
    if own is None or recipe is None:
        assert other is not None
        return other, other
    train, held_out = own.split(recipe.training.validation_share, recipe.seed)
    return train, other if other is not None else held_out if len(held_out) else train
