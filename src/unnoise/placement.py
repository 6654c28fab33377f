"""Where a denoiser samples, and in which numbers."""

from __future__ import annotations

import copy

import torch

from .denoisers.base import Denoiser
from .nn.packing import pack
from .objectives.mse import preconditioned
from .precision import Precision, compute_dtype, dtype_of, find_device, lower
from .training.threads import step_operations

WORTH_LOWERING = 5e9
"""Operations of a sample's forward pass from which bfloat16 is taken without being asked for: networks on larger pictures."""


def placed(
    denoiser: Denoiser, shape: tuple[int, ...], device: str | torch.device = "auto", precision: Precision = "auto"
) -> Denoiser:
    """A denoiser on a device and in a precision; itself where it stands there already.

    Args:
        denoiser: In float32.
        shape: Of one sample of its network's input.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", or a device.
        precision: "fp32", "bf16", or "auto" for bf16 where the network is large and the hardware faster with it.

    Raises:
        BadOption: There is no such device here, or no such precision.
    """
    network = preconditioned(denoiser).network
    assert network is not None
    place = find_device(device) if isinstance(device, str) else device
    dtype = compute_dtype(precision, place)
    lowered = dtype != torch.float32
    if lowered and precision == "auto" and step_operations(network, shape, 1) < 3 * WORTH_LOWERING:
        dtype = torch.float32
    if dtype == torch.float32:
        dtype = dtype_of(network) or dtype
    if next(network.parameters()).device == place and dtype == dtype_of(network):
        return denoiser
    moved = copy.deepcopy(denoiser).to(place)
    network = preconditioned(moved).network
    assert network is not None
    lower(network, dtype)
    if place.type == "cpu":
        pack(network)
    return moved


def precision_of(denoiser: Denoiser) -> Precision:
    """What a denoiser's network computes in: "bf16", or "fp32" for that and anything finer."""
    network = preconditioned(denoiser).network
    return "bf16" if network is not None and dtype_of(network) == torch.bfloat16 else "fp32"
