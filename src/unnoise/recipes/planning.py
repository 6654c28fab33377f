"""What a large run would take, worked out from its recipe and a few steps measured here: memory, time, storage, network, money.

Nothing is trained. Parameters and operations are counted, activations are counted on tensors without memory, and the speed of a
few steps on this machine, as a share of what it multiplies at best, is what another device is expected to reach too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ..denoisers.base import Denoiser
from ..errors import BadOption, UnknownName
from ..objectives.mse import preconditioned
from ..precision import compute_dtype, lower, settle_in
from ..training.batch import accumulated
from ..training.draws import DrawStream
from ..training.execution import begin_state, checkpoint_blocks
from ..training.gradient import Gradient
from ..training.memory import MARGIN, free_bytes, kept_bytes, state_bytes
from ..training.peak import measured_peak
from ..training.threads import step_operations, threads_for
from .prepare import Prepared

SCALING = 0.9
"""Share of their speed that many devices keep, about, when gradients are sent over a network made for it."""
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class Accelerator:
    """A device that one may rent, by its maker's data sheet.

    Args:
        tflops: Dense bfloat16 operations a second, in 10^12.
        memory_gb: Of its own, in 10^9 bytes.
    """

    tflops: float
    memory_gb: float


ACCELERATORS: Mapping[str, Accelerator] = {
    "a100-40": Accelerator(312, 40),
    "a100": Accelerator(312, 80),
    "h100": Accelerator(989, 80),
    "h200": Accelerator(989, 141),
    "b200": Accelerator(2250, 180),
    "l40s": Accelerator(362, 48),
    "rtx4090": Accelerator(165, 24),
    "mi300x": Accelerator(1307, 192),
}


@dataclass(frozen=True)
class Memory:
    """Bytes of a device, for one way of sharing.

    Args:
        way: Its name.
        state: Weights, gradients, averages and moments.
        activations: Kept for the way back, of the samples of a micro batch.
        fits: The most samples at once beside the state; None where nobody knows the device's memory.
    """

    way: str
    state: float
    activations: float
    fits: int | None

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.activations


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Args:
        devices: How many.
        device: Their name.
        parameters: That are trained.
        forward_operations: Floating-point operations of one sample's forward pass; training takes three times as many.
        samples: That the run sees, all in all.
        batch_per_device: Samples of a step.
        memory: For each way of sharing.
        share_of_peak: Measured here.
        samples_per_second: Expected, of all devices.
        hours: Of the run.
        price: Of the run, at the price that was given; None without.
        checkpoint_bytes: Of one checkpoint.
        model_bytes: Of the finished model.
        storage_bytes: Of checkpoints and model at any time, beside the data.
        data_bytes_per_second: That reading the data takes, as it is stored in memory.
        network_bytes_per_second: That each device sends, and receives, by way of sharing.
    """

    devices: int
    device: str
    parameters: int
    forward_operations: float
    samples: int
    batch_per_device: float
    memory: tuple[Memory, ...]
    share_of_peak: float
    samples_per_second: float
    hours: float
    price: float | None
    checkpoint_bytes: int
    model_bytes: int
    storage_bytes: int
    data_bytes_per_second: float
    network_bytes_per_second: Mapping[str, float]

    def describe(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def plan(
    prepared: Prepared, devices: int = 1, device: str = "this", price: float | None = None, seconds: float = 5.0
) -> Plan:
    """What a run would take.

    Args:
        prepared: A recipe with its data.
        devices: How many share each batch.
        device: A name in `ACCELERATORS`, or "this" for more of what is here.
        price: Of one device for an hour, in any currency.
        seconds: For which steps are measured here.

    Raises:
        UnknownName: There is no such device.
        BadOption: There are more devices than samples in a batch.
    """
    recipe = prepared.recipe
    if device != "this" and device not in ACCELERATORS:
        raise UnknownName("device", device, ["this", *ACCELERATORS])
    batch = recipe.training.batch_size
    if devices > batch:
        raise BadOption(
            f"--gpus: {batch} samples a step cannot be shared by {devices} devices: raise training.batch_size"
        )
    here = recipe.machine.torch_device()
    peak, share = _measured(prepared, batch / devices, here, seconds)
    network = _network(_begun(prepared))
    operations = step_operations(network, prepared.blueprint.input_shape, 1)
    there = ACCELERATORS[device].tflops * 1e12 if device != "this" else peak
    rate = devices * share * there / operations * (SCALING if devices > 1 else 1.0)
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    samples = recipe.training.steps * batch
    hours = samples / rate / 3600
    averages = len(recipe.training.averages)
    checkpoint, model = 4 * weights * (3 + averages), 4 * sum(p.numel() for p in network.parameters())
    x = prepared.train.spec.shape
    numbers = 1
    for size in x:
        numbers *= size
    stored = numbers * (1 if prepared.train.spec.kind == "image" else 4)
    steps_a_second = rate / batch
    return Plan(
        devices, device, weights, operations / 3, samples, batch / devices,
        _memory(prepared, devices, device, averages), share, rate, hours,
        None if price is None else price * devices * hours,
        checkpoint, model, CHECKPOINTS_KEPT * checkpoint + (1 + averages) * model, stored * rate,
        {way: bytes_ * steps_a_second for way, bytes_ in _sent(weights, devices).items()},
    )  # fmt: skip


def _begun(prepared: Prepared) -> Denoiser:
    """The denoiser before the first step, with the weights and adapters that a run begins with."""
    denoiser = prepared.blueprint.build(prepared.recipe.seed)
    if prepared.start is not None:
        prepared.start.begin(_network(denoiser), prepared.blueprint, prepared.recipe.seed)
    return denoiser


def _network(denoiser: Denoiser) -> nn.Module:
    network = preconditioned(denoiser).network
    assert network is not None
    return network


def _sent(weights: int, devices: int) -> dict[str, float]:
    """Bytes that a device sends for a step: rings pass on (n - 1) / n of everything once for each collective."""
    around = (devices - 1) / devices
    return {"ddp": 2 * 4 * weights * around, "fsdp": (2 * 2 + 4) * weights * around}


def _memory(prepared: Prepared, devices: int, device: str, averages: int) -> tuple[Memory, ...]:
    recipe = prepared.recipe
    at_once = -(-recipe.training.batch_size // devices)
    if recipe.machine.micro_batch:
        at_once = min(at_once, recipe.machine.micro_batch)
    room = free_bytes(recipe.machine.torch_device()) if device == "this" else ACCELERATORS[device].memory_gb * 1e9
    dtype = torch.float32 if recipe.machine.precision == "fp32" else torch.bfloat16
    if device == "this":
        dtype = compute_dtype(recipe.machine.precision, recipe.machine.torch_device())
    found = []
    for forgetting in (False, True):
        network = _network(_begun(prepared))
        lower(network, dtype)
        if forgetting:
            try:
                checkpoint_blocks(network)
            except BadOption:
                break
        shape = prepared.blueprint.input_shape
        one, two = (kept_bytes(network, shape, n) for n in (1, 2))
        each, fixed = MARGIN * max(two - one, 1), MARGIN * max(2 * one - two, 0)
        state = state_bytes(network, averages)
        for way, sharers in (("ddp", 1), ("fsdp", devices)):
            if way == "fsdp" and devices == 1:
                continue
            own = state / sharers + fixed
            fits = None if room is None else max(int((room - own) // each), 0)
            name = f"{way}, activations forgotten" if forgetting else way
            found.append(Memory(name, own, at_once * each, fits))
    return tuple(found)


def _measured(prepared: Prepared, batch: float, device: torch.device, seconds: float) -> tuple[float, float]:
    """What this machine multiplies at best, and the share of it that steps of training reach here."""
    recipe, blueprint = prepared.recipe, prepared.blueprint
    denoiser = _begun(prepared)
    network = _network(denoiser)
    size = max(1, min(int(batch), 64, len(prepared.train)))
    operations = step_operations(network, blueprint.input_shape, 1)
    if device.type == "cpu":  # a step of a second or so
        size = max(1, min(size, int(3e11 / operations)))
    settings = replace(recipe.training, batch_size=size)
    settle_in()
    companion = recipe.objective.companion(denoiser.schedule)
    state = begin_state(network, blueprint.input_shape, settings, recipe.machine, device, companion=companion)
    gradient = Gradient(recipe.objective, denoiser, state, recipe.seed, state.companion)
    stream = DrawStream(
        prepared.train,
        blueprint.codec,
        denoiser,
        recipe.objective,
        size,
        recipe.seed,
        state.companion.history,
        captions=prepared.captions,
    )
    network.train()
    batch_ = stream.step(0, device)
    steps, began = 0, 0.0
    with threads_for(operations * size):
        peak = measured_peak(getattr(network, "lowered_to", None) or torch.float32, device, torch.get_num_threads())
        while steps < 4 or time.perf_counter() - began < seconds:
            if steps == 2:  # the first ones set things up
                began = time.perf_counter()
            accumulated(gradient, batch_, 0)
            float(state.update())
            steps += 1
        rate = (steps - 2) * size / (time.perf_counter() - began)
    return peak, rate * operations / peak
