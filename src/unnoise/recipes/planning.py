"""What a large run would take, worked out from its recipe and a few steps measured here: memory, time, storage, network, money.

Nothing is trained. Parameters and operations are counted, activations are counted on tensors without memory, and the speed of a
few steps on this machine, as a share of what it multiplies at best, is what another device is expected to reach too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..errors import BadOption, UnknownName
from ..nn.base import Condition
from ..precision import lower, settle_in
from ..training.batch import accumulated
from ..training.execution import begin_state, checkpoint_blocks, training_dtype
from ..training.memory import MARGIN, free_bytes, kept_bytes, state_bytes
from ..training.peak import measured_peak
from ..training.sharded import gathered_bytes, sent_bytes
from ..training.threads import SMALL_STEP, step_operations, threads_for
from .work import Work

SCALING = 0.9
"""Share of their speed that many devices keep, about, when gradients are sent over a network made for it."""
MOST_SHARE = 0.5
"""Of another device's peak, that is expected: few networks reach more on a GPU. Here convolutions with a quarter of the
multiplications reach more than products of matrices do, which says nothing of another device."""
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
        state: Weights, gradients, averages and moments; of shared weights, also those that are whole at a time.
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
        share_of_peak: That steps are expected to reach: as measured here, of another device `MOST_SHARE` at most.
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


def plan(work: Work, devices: int = 1, device: str = "this", price: float | None = None, seconds: float = 5.0) -> Plan:
    """What a run would take.

    Args:
        work: What a recipe of any kind asks for, its data read.
        devices: How many share each batch.
        device: A name in `ACCELERATORS`, or "this" for more of what is here.
        price: Of one device for an hour, in any currency.
        seconds: For which steps are measured here.

    Raises:
        UnknownName: There is no such device.
        BadOption: There are more devices than samples in a batch, or it trains on one alone.
    """
    recipe = work.recipe
    if device != "this" and device not in ACCELERATORS:
        raise UnknownName("device", device, ["this", *ACCELERATORS])
    batch = recipe.training.batch_size
    if devices > batch:
        raise BadOption(
            f"--gpus: {batch} samples a step cannot be shared by {devices} devices: raise training.batch_size"
        )
    if devices > 1 and not work.shared:
        raise BadOption(f"--gpus: kind {recipe.kind} trains in one process, on one device: leave it 1")
    here = recipe.machine.torch_device()
    measured = _measured(work, batch / devices, here, seconds)
    trainee, operations = work.trainee(), measured.operations
    network = trainee.network
    there = ACCELERATORS[device].tflops * 1e12 if device != "this" else measured.peak
    share = measured.share if device == "this" else min(measured.share, MOST_SHARE)
    rate = devices * share * there / operations * (SCALING if devices > 1 else 1.0)
    weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    samples = recipe.training.steps * batch
    hours = samples / rate / 3600
    averages = len(recipe.training.averages)
    beside = sum(each.numel() * each.element_size() for each in trainee.companion().tensors().values())
    checkpoint = 4 * weights * (3 + averages) + beside
    model = 4 * sum(p.numel() for p in network.parameters())
    spec = work.train.spec
    stored = math.prod(spec.shape) * (1 if spec.kind == "image" else 4)
    dtype = _dtype(work, device, operations * batch)
    passes = math.ceil(batch / devices / (recipe.machine.micro_batch or batch))
    # Rings sum with two passes over everything, and pass on (n - 1) / n of it in each.
    a_step = {
        "ddp": 2 * 4 * weights * (devices - 1) / devices, "fsdp": sent_bytes(network, dtype, devices, passes),
    }  # fmt: skip
    sent: dict[str, float] = {way: a_step[way] * rate / batch for way in work.shared}
    return Plan(
        devices, device, weights, operations / 3, samples, batch / devices,
        _memory(work, devices, device, averages, measured.cond, dtype), share, rate, hours,
        None if price is None else price * devices * hours,
        checkpoint, model, CHECKPOINTS_KEPT * checkpoint + (1 + averages) * model, stored * rate, sent,
    )  # fmt: skip


def _dtype(work: Work, device: str, operations: float) -> torch.dtype:
    """What a network computes in there, in steps of that many operations."""
    machine = work.recipe.machine
    if device == "this":
        return training_dtype(machine, machine.torch_device(), operations)
    small = machine.precision == "auto" and operations < SMALL_STEP
    return torch.float32 if small or machine.precision == "fp32" else torch.bfloat16


def _memory(
    work: Work, devices: int, device: str, averages: int, cond: Condition | None, dtype: torch.dtype
) -> tuple[Memory, ...]:
    recipe = work.recipe
    at_once = -(-recipe.training.batch_size // devices)
    if recipe.machine.micro_batch:
        at_once = min(at_once, recipe.machine.micro_batch)
    room = free_bytes(recipe.machine.torch_device()) if device == "this" else ACCELERATORS[device].memory_gb * 1e9
    kind = recipe.machine.keeps_as(recipe.machine.torch_device() if device == "this" else torch.device("cuda"))
    found = []
    for forgetting in (False, True):
        network = work.trainee().network
        lower(network, dtype)
        if forgetting:
            try:
                checkpoint_blocks(network)
            except BadOption:
                break
        one, two = (kept_bytes(network, work.input_shape, n, cond, kind) for n in (1, 2))
        each, fixed = MARGIN * max(two - one, 1), MARGIN * max(2 * one - two, 0)
        state, gathered = state_bytes(network, averages), gathered_bytes(network, dtype)
        for way in work.shared or ("alone",):
            if way == "fsdp" and devices == 1:
                continue
            own = (state / devices + gathered if way == "fsdp" else state) + fixed
            fits = None if room is None else max(int((room - own) // each), 0)
            name = f"{way}, activations forgotten" if forgetting else way
            found.append(Memory(name, own, at_once * each, fits))
    return tuple(found)


@dataclass(frozen=True)
class _Measured:
    """What steps of training reach here.

    Args:
        operations: Floating-point operations of a step, for each of its samples.
        peak: What this machine multiplies at best, in operations a second.
        share: Of the peak, that steps reach.
        cond: What is told beside two samples; None where nothing is.
    """

    operations: float
    peak: float
    share: float
    cond: Condition | None


def _measured(work: Work, batch: float, device: torch.device, seconds: float) -> _Measured:
    recipe, shape = work.recipe, work.input_shape
    trainee = work.trainee()
    network = trainee.network
    size = max(1, min(int(batch), 64, len(work.train)))
    if device.type == "cpu":  # a step of a second or so
        size = max(1, min(size, int(3e11 / step_operations(network, shape, 1))))
    settings = replace(recipe.training, batch_size=size)
    settle_in()
    state = begin_state(
        network, shape, settings, recipe.machine, device, companion=trainee.companion(), whole=trainee.whole
    )
    gradient = trainee.gradient(state)
    trainee.module.train()
    examples = trainee.examples(state).until(1).step(0, device)
    cond = examples.cond and {name: value[:1].repeat_interleave(2, 0) for name, value in examples.cond.items()}
    operations = step_operations(network, shape, 1, cond)
    steps, began = 0, 0.0
    with threads_for(operations * size):
        peak = measured_peak(getattr(network, "lowered_to", None) or torch.float32, device, torch.get_num_threads())
        while steps < 4 or time.perf_counter() - began < seconds:
            if steps == 2:  # the first ones set things up
                began = time.perf_counter()
            accumulated(gradient, examples, 0)
            float(state.update())
            steps += 1
        rate = (steps - 2) * size / (time.perf_counter() - began)
    return _Measured(operations, peak, rate * operations / peak, cond)
