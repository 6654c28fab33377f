"""Random numbers addressed by meaning: a function of (seed, purpose, sample, position), never a stream with a state.

Whatever a person can see (starting noise, noise of stochastic samplers, data order, condition dropout, timesteps) comes
from here. Sample 17 is therefore sample 17 alone, in any batch, on any device and in a run that was resumed.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ShapeError

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

_AT_ONCE = 2**25  # numbers that are drawn together on a GPU
_MASK = 0xFFFFFFFF
_LOW = np.uint64(_MASK)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

Key = tuple[int, int] | tuple[Words, Words]
"""Two 32-bit words, or two arrays of them (in uint64), a key for every sample."""


def philox(key: Key, counter: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10: four random 32-bit words for every counter.

    Args:
        key: Two 32-bit words, or arrays of them that broadcast with the counters.
        counter: Four arrays of 32-bit words (in uint64) that broadcast together.

    Returns:
        Four arrays of 32-bit words (in uint64).

    References:
        Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011), Section 3.3, https://doi.org/10.1145/2063384.2063405
    """
    a, b, c, d = counter
    key_0, key_1 = (np.asarray(word, dtype=np.uint64) for word in key)
    for _ in range(10):
        product_0, product_1 = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a = (product_1 >> _SHIFT) ^ b ^ key_0
        c = (product_0 >> _SHIFT) ^ d ^ key_1
        b, d = product_1 & _LOW, product_0 & _LOW
        key_0, key_1 = (key_0 + _KEY_STEPS[0]) & _LOW, (key_1 + _KEY_STEPS[1]) & _LOW
    return a, b, c, d


def address(seed: int, purpose: str, *position: int | float) -> tuple[int, int]:
    """A key of two 32-bit words for one meaning of randomness; distinct meanings give independent numbers.

    Args:
        seed: What the person chose; any integer.
        purpose: What the numbers are for, such as "start".
        position: Numbers that tell apart the uses, such as the epoch or the ends of an interval.
    """
    text = f"{seed}/{purpose}/".encode() + b"".join(
        struct.pack("<cq", b"i", p) if isinstance(p, (int, np.integer)) else struct.pack("<cd", b"f", p)
        for p in position
    )
    return struct.unpack("<II", hashlib.blake2b(text, digest_size=8).digest())


@contextmanager
def torch_seeded(key: tuple[int, int], device: torch.device) -> Iterator[None]:
    """Within it torch's own generator on a device, which dropout draws from, starts at an address; then it is as before.

    Args:
        key: From `address`.
        device: The processor, or a GPU.
    """
    generator = _generator(device)
    before = generator.get_state()
    generator.manual_seed(key[0] | key[1] << 32)
    try:
        yield
    finally:
        generator.set_state(before)


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator


def random_words(key: Key, samples: Sequence[int] | NDArray[np.int64], count: int) -> Words:
    """Random 32-bit words for every sample.

    Args:
        key: From `address`; or one for every sample, two arrays of shape (n, 1).
        samples: n sample indices, at least 0.
        count: Words a sample.

    Returns:
        Shape (n, count), uint64 below 2**32.
    """
    index = np.asarray(samples, dtype=np.int64).astype(np.uint64)[:, None]
    block = np.arange(-(-count // 4), dtype=np.uint64)[None, :]
    zero = np.zeros((1, 1), dtype=np.uint64)
    words = philox(key, (block + zero, index & _LOW, index >> _SHIFT, zero))
    return np.stack(np.broadcast_arrays(*words), axis=-1).reshape(len(index), -1)[:, :count]


def uniform(key: tuple[int, int], samples: Sequence[int] | NDArray[np.int64], count: int = 1) -> Floats:
    """Uniform numbers in the open interval (0, 1), shape (n, count), float64; arguments as in `random_words`."""
    return (random_words(key, samples, count).astype(np.float64) + 0.5) * 2.0**-32


def normal(key: tuple[int, int], samples: Sequence[int] | NDArray[np.int64], count: int = 1) -> Floats:
    """Standard normal numbers by Box and Muller, shape (n, count), float64; arguments as in `random_words`."""
    u = uniform(key, samples, count + count % 2).reshape(len(samples), -1, 2)
    radius, angle = np.sqrt(-2.0 * np.log(u[..., 0])), 2.0 * math.pi * u[..., 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(len(samples), -1)[:, :count]


def normal_on(
    device: torch.device, key: tuple[int, int], samples: Sequence[int] | NDArray[np.int64], count: int
) -> Tensor:
    """The numbers of `normal`, drawn on another device from the same words; they may differ in the last digit of a float64.

    Numpy draws about nine million a second, for which training on a GPU would wait.

    References:
        Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011), Section 3.3, https://doi.org/10.1145/2063384.2063405

    Args:
        device: One that has float64.
        key: From `address`.
        samples: n sample indices, at least 0.
        count: Numbers a sample.

    Returns:
        Shape (n, count), float64.
    """
    index = torch.as_tensor(np.asarray(samples, dtype=np.int64)).to(device)[:, None]
    most = max(1, _AT_ONCE // max(count, 1))
    if len(index) > most:  # a number takes half a hundred bytes on the way
        return torch.cat(
            [normal_on(device, key, part, count) for part in np.array_split(samples, -(-len(index) // most))]
        )
    block = torch.arange(-(-count // 4), device=device)[None, :]
    words = _philox_of_signed(key, (block, index & _MASK, index >> 32, torch.zeros_like(index)))
    u = (torch.stack(torch.broadcast_tensors(*words), dim=-1).double() + 0.5) * 2.0**-32
    u = u.reshape(len(index), -1, 2)
    radius, angle = (-2.0 * u[..., 0].log()).sqrt(), 2.0 * math.pi * u[..., 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).reshape(len(index), -1)[:, :count]


def _philox_of_signed(key: tuple[int, int], counter: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`philox` with tensors of int64, whose products wrap around as unsigned ones do."""
    a, b, c, d = counter
    key_0, key_1 = key
    first, second = (int(each) for each in _MULTIPLIERS)
    for _ in range(10):
        product_0, product_1 = first * a, second * c
        a = ((product_1 >> 32) & _MASK) ^ b ^ key_0
        c = ((product_0 >> 32) & _MASK) ^ d ^ key_1
        b, d = product_1 & _MASK, product_0 & _MASK
        key_0, key_1 = (key_0 + int(_KEY_STEPS[0])) & _MASK, (key_1 + int(_KEY_STEPS[1])) & _MASK
    return a, b, c, d


def normal_like(key: tuple[int, int], samples: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise of the shape (n, ...), dtype and device of `like`; on a GPU it is drawn there.

    Raises:
        ShapeError: `like` has another number of samples.
    """
    if len(samples) != len(like):
        raise ShapeError(f"expected noise for {len(like)} samples, and there are {len(samples)} sample indices")
    count = math.prod(like.shape[1:])
    if like.device.type not in ("cpu", "mps"):  # the first is numpy's place, and the second has no float64
        return normal_on(like.device, key, samples, count).to(like.dtype).reshape(like.shape)
    values = normal(key, samples, count)
    return torch.from_numpy(values).to(device=like.device, dtype=like.dtype).reshape(like.shape)


def permutations(seed: int, size: int, first_epoch: int, num_epochs: int) -> NDArray[np.int64]:
    """The order of the data in each epoch.

    Args:
        seed: Which order.
        size: How many samples the data has.
        first_epoch: The first epoch wanted.
        num_epochs: How many epochs.

    Returns:
        Shape (num_epochs, size): each row a permutation of 0 ... size - 1.
    """
    epochs = range(first_epoch, first_epoch + num_epochs)
    keys = np.array([address(seed, "order", epoch) for epoch in epochs], dtype=np.uint64).reshape(-1, 2)
    # All epochs at once: of a small data set a block of steps sees many.
    words = random_words((keys[:, :1], keys[:, 1:]), np.zeros(num_epochs, dtype=np.int64), size)
    return np.argsort(words, axis=1, kind="stable")


class Noise(Protocol):
    """What a stochastic sampler draws from: noise addressed by interval."""

    def __call__(self, like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        """Standard normal noise of the shape of `like` for the step from t to s."""
        ...


class NoiseSource:
    """The noise of a batch of samples, each with its own address.

    Args:
        seed: Which world.
        sample_indices: The index of every sample of the batch, at least 0.
    """

    def __init__(self, seed: int, sample_indices: Sequence[int]) -> None:
        self.seed = seed
        self.sample_indices = [int(i) for i in sample_indices]

    def start(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal starting noise.

        Args:
            shape: Of one sample.
            dtype: Of the result.

        Returns:
            Shape (n, *shape).
        """
        like = torch.empty((len(self.sample_indices), *shape), dtype=dtype)
        return normal_like(address(self.seed, "start"), self.sample_indices, like)

    def __call__(self, like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        """Standard normal noise for one step.

        Args:
            like: Gives the shape (n, ...), dtype and device.
            t: Where the step begins.
            s: Where it ends.
            draw: Which of several draws in one interval.
        """
        return normal_like(address(self.seed, "step", float(t), float(s), draw), self.sample_indices, like)


class BlendedNoise(NoiseSource):
    r"""Two noises mixed on the circle, :math:`\cos(\theta)\,\varepsilon_1 + \sin(\theta)\,\varepsilon_2`.

    Here :math:`\theta` is `share` of a right angle. Standard normal again for every share, in any dimension. It is spherical
    interpolation at the right angle that independent noises of many values nearly make; at share 0 it is the first to the bit,
    at share 1 the second.

    Args:
        first: What is mixed.
        second: With what, as many samples.
        share: In [0, 1].

    Raises:
        ShapeError: They have different numbers of samples.

    References:
        Animating Rotation with Quaternion Curves (Shoemake, 1985), Section 3.3, https://doi.org/10.1145/325334.325242
    """

    def __init__(self, first: NoiseSource, second: NoiseSource, share: float) -> None:
        super().__init__(first.seed, first.sample_indices)
        if len(second.sample_indices) != len(first.sample_indices):
            raise ShapeError(
                f"expected two noises of {len(first.sample_indices)} samples, got one of {len(second.sample_indices)}"
            )
        self.first, self.second, self.share = first, second, share

    def start(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """See `NoiseSource.start`."""
        return self._mixed(lambda noise: noise.start(shape, dtype))

    def __call__(self, like: Tensor, t: float, s: float, draw: int = 0) -> Tensor:
        """See `NoiseSource.__call__`."""
        return self._mixed(lambda noise: noise(like, t, s, draw))

    def _mixed(self, drawn: Callable[[NoiseSource], Tensor]) -> Tensor:
        if self.share in (0, 1):
            return drawn(self.second if self.share else self.first)
        angle = self.share * math.pi / 2
        return math.cos(angle) * drawn(self.first) + math.sin(angle) * drawn(self.second)
