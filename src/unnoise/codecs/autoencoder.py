"""A learned space of latents: an autoencoder that was trained before, its latents centred and scaled to unit variance."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from ..errors import BadOption, DataError, IncompatibleParts, ModelFolderError, ShapeError
from ..nn.autoencoder import Autoencoder, AutoencoderConfig
from ..nn.packing import pack
from ..options import option
from ..precision import dtype_of, lower
from ..randomness import address, normal_like
from .base import Codec, Positions, codecs
from .identity import IdentityCodec
from .tiles import tiled

MOST_AT_ONCE = 2**19
"""Values of the data that go through the autoencoder at once, about; one sample in any case."""
FINDS = ("path", "latents")
"""The options that say where things are, and nothing of what the codec does."""


@codecs.register("autoencoder")
@dataclass(frozen=True)
class AutoencoderCodec(Codec):
    """Latents of a trained autoencoder, brought to zero mean and unit variance; and its decoder for the way back.

    z = (mean of the latents - shift) / scale, with the mean that the encoder tells.

    In a recipe it is `{name: autoencoder, path: runs/ae}`: all else stands in that folder. A model's folder holds the weights.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), Sections 3.1 and G,
        https://arxiv.org/abs/2112.10752

    Raises:
        BadOption: Centre and spread are not one number, or one for each channel; or a spread is not positive.
    """

    learned: ClassVar[bool] = True

    path: str = option(
        "",
        help="the folder of a trained autoencoder, or of a model that holds one; it says the rest but latents and tile",
    )
    latents: str = option(
        "auto", help="where latents of the data are kept: a folder that `unnoise encode` made, auto (the cache) or none"
    )
    posterior: Literal["mean", "sample"] = option(
        "mean", help="what training sees of a sample: the mean of its latents, or each time others by their variance"
    )
    tile: int = option(
        128,
        help="latents of more places than this along a side are worked on in overlapping tiles; 0 never does",
        low=0,
    )
    dims: int = option(2, help="dimensions of the data beside its channels", low=1, high=3)
    channels: int = option(3, help="channels of the data", low=1)
    network: AutoencoderConfig = option(AutoencoderConfig(), help="the autoencoder")
    data: IdentityCodec = option(IdentityCodec.pixels(), help="how data is centred and scaled for it", one_of=codecs)
    centre: tuple[float, ...] = option((0.0,), help="mean of the latents: one number, or one a channel")
    spread: tuple[float, ...] = option(
        (1.0,), help="standard deviation of the latents: one positive number, or one a channel"
    )
    module: Autoencoder | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.data, IdentityCodec):
            raise BadOption(f"data: expected the codec identity, got {self.data.registered_name}")
        for name in ("centre", "spread"):
            count = len(getattr(self, name))
            if count not in (1, self.network.latent_channels):
                raise BadOption(f"{name}: expected 1 or {self.network.latent_channels} numbers, got {count}")
        if not min(self.spread) > 0:
            raise BadOption(f"spread: must be positive, got {self.spread}")

    @classmethod
    def untrained(
        cls, data_shape: Sequence[int], network: AutoencoderConfig, data: IdentityCodec, seed: int = 0
    ) -> Self:
        """One with random weights, the same for one seed.

        Args:
            data_shape: Of one sample, channels first.
            network: Of which kind.
            data: How data is centred and scaled.
            seed: Of the weights.

        Raises:
            IncompatibleParts: It cannot work on such data.
        """
        if not 2 <= len(data_shape) <= 4:
            raise IncompatibleParts(
                f"an autoencoder is for sequences, pictures and videos, not for samples of shape {tuple(data_shape)}"
            )
        codec = cls(dims=len(data_shape) - 1, channels=data_shape[0], network=network, data=data)
        codec.shape(tuple(data_shape))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return codec.holding(Autoencoder(codec.dims, codec.channels, network))

    def holding(self, module: Autoencoder) -> Self:
        """The same with another autoencoder inside, which is not copied."""
        twin = copy.copy(self)
        object.__setattr__(twin, "module", module.eval().requires_grad_(False))
        return twin

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder inside.

        Raises:
            BadOption: There are only options yet.
        """
        if self.module is None:
            raise BadOption("codec.path: give the folder of a trained autoencoder, such as codec.path=runs/ae")
        return self.module

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides what data is encoded as, 64 hexadecimal digits."""
        about = {name: value for name, value in self.describe().items() if name not in ("posterior", "tile")}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, value in sorted(self.weights().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def weights(self) -> dict[str, Tensor]:
        """See `Codec.weights`."""
        return self.autoencoder.state_dict()

    def with_weights(self, weights: Mapping[str, Tensor]) -> Self:
        """See `Codec.with_weights`."""
        module = Autoencoder(self.dims, self.channels, self.network)
        own = module.state_dict()
        wrong = sorted(set(own) ^ set(weights)) or [name for name in own if own[name].shape != weights[name].shape]
        if wrong:
            raise ModelFolderError(
                f"the weights of the autoencoder are those of another one: they differ in {wrong[0]}"
            )
        module.load_state_dict(dict(weights))
        return self.holding(module)

    def on(self, device: torch.device, dtype: torch.dtype) -> Self:
        """See `Codec.on`."""
        here = self.autoencoder
        if next(here.parameters()).device == device and dtype_of(here) == dtype:
            return self
        moved = copy.deepcopy(here).to(device)
        lower(moved, dtype)
        if device.type == "cpu":
            pack(moved)
        return self.holding(moved)

    def shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """See `Codec.shape`."""
        channels, *sizes = data_shape
        if len(sizes) != self.dims or channels != self.channels:
            raise IncompatibleParts(
                f"codec: the autoencoder is for samples of {self.channels} channels in {self.dims} dimensions, and the data has "
                f"shape {tuple(data_shape)}: take one that was trained on such data"
            )
        stride = self.network.stride
        if any(size % stride for size in sizes):
            raise IncompatibleParts(
                f"codec: the autoencoder makes {stride} x {stride} values into one, by which sizes of the data, {tuple(sizes)}, "
                "cannot be divided: choose another data.size"
            )
        return (self.network.latent_channels, *(size // stride for size in sizes))

    def encode(self, x: Tensor) -> Tensor:
        """The means of the latents, whitened; see `Codec.encode`."""
        return self.moments(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """See `Codec.decode`."""
        if z.ndim != self.dims + 2 or z.shape[1] != self.network.latent_channels:
            raise ShapeError(
                f"expected latents of {self.network.latent_channels} channels in {self.dims} dimensions, got {tuple(z.shape)}"
            )
        values = self.channels * math.prod(size * self.network.stride for size in z.shape[2:])
        whole = self._in_parts(lambda part: (self._decoded(part),), z, values)[0]
        return self.data.decode(whole)

    def _decoded(self, z: Tensor) -> Tensor:
        latents = z * _over(self.spread, z) + _over(self.centre, z)
        return tiled(self.autoencoder.decode, latents, self.tile, leaves=self.network.stride)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latents, whitened, shape (B, *shape) each; the second where one is told.

        Args:
            x: Shape (B, ...), as its data set gives it.
        """
        self.shape(tuple(x.shape[1:]))
        inputs = self.data.encode(x)
        mean, *more = self._in_parts(self._encoded, inputs, math.prod(x.shape[1:]))
        mean = (mean - _over(self.centre, mean)) / _over(self.spread, mean)
        return mean, more[0] / _over(self.spread, mean) if more else None

    def _encoded(self, x: Tensor) -> tuple[Tensor, ...]:
        def together(part: Tensor) -> Tensor:
            return torch.cat([each for each in self.autoencoder.moments(part) if each is not None], dim=1)

        told = tiled(together, x, self.tile, enters=self.network.stride)
        return told.split(self.network.latent_channels, dim=1)

    def drawn(self, x: Tensor, seed: int, positions: Positions) -> Tensor:
        """See `Codec.drawn`: of the sample at a position always the same latents are drawn."""
        mean, std = self.moments(x)
        return mean if self.posterior == "mean" else posterior_draw(mean, std, seed, positions)

    def whitened(self, x: Tensor, device: torch.device | None = None) -> Self:
        """The same with latents of mean 0 and variance 1 in every channel over some data.

        Args:
            x: Shape (N, ...), as its data set gives it.
            device: Where it is worked out; where the codec is by default.

        Raises:
            DataError: A channel of the latents says nothing of the data, or is not finite.
        """
        bare = self._with(centre=(0.0,), spread=(1.0,))
        bare = bare if device is None else bare.on(device, torch.float32)
        channels = bare.encode(x).double().transpose(0, 1).flatten(1)
        centre, spread = channels.mean(1), channels.std(1, correction=0)
        if not bool((torch.isfinite(spread) & (spread > 0)).all()):
            raise DataError(
                "a channel of the latents is the same for all samples, or not finite: train the autoencoder longer"
            )
        return self._with(centre=tuple(centre.tolist()), spread=tuple(spread.tolist()))

    def chosen(self, wanted: AutoencoderCodec) -> Self:
        """The same, with those options that are for a recipe to choose as the codec of a recipe has them."""
        return self._with(latents=wanted.latents, posterior=wanted.posterior, tile=wanted.tile)

    def _with(self, **options: Any) -> Self:
        twin = copy.copy(self)
        for name, value in options.items():
            object.__setattr__(twin, name, value)
        twin.__post_init__()
        return twin

    def _in_parts(self, work: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, values: int) -> list[Tensor]:
        """What is worked out of a batch a few samples at a time, where the weights are; the results are where x is."""
        place = next(self.autoencoder.parameters()).device
        size = max(1, MOST_AT_ONCE // values)
        with torch.no_grad():
            parts = [tuple(each.to(x.device) for each in work(part.to(place))) for part in x.split(size)]
        return [torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True)]

    def describe(self) -> dict[str, Any]:
        """See `Codec.describe`."""
        return {name: value for name, value in codecs.describe(self).items() if name not in FINDS}


def posterior_draw(mean: Tensor, std: Tensor | None, seed: int, positions: Positions) -> Tensor:
    """Latents from their density, a function of seed and position; the means where no variance is told."""
    return mean if std is None else mean + std * normal_like(address(seed, "latents"), positions, mean)  # type: ignore[arg-type]


def _over(values: tuple[float, ...], z: Tensor) -> Tensor:
    return torch.tensor(values, dtype=z.dtype, device=z.device).reshape(1, -1, *[1] * (z.ndim - 2))
