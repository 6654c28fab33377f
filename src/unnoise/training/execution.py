"""Brings a network to where and how it is trained: device, precision, sharding, checkpointing, compilation."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ..errors import BadOption
from ..nn.autoencoder import Autoencoder
from ..nn.base import Network
from ..objectives.companion import Companion
from ..precision import compute_dtype, lower
from .compiling import compile_network
from .machine import MachineSettings
from .memory import check_memory, free_bytes, without_memory
from .parallel import ALONE, Processes
from .settings import TrainingSettings
from .sharded import shard
from .state import TrainState
from .threads import SMALL_STEP, step_operations


def training_dtype(machine: MachineSettings, device: torch.device, operations: float) -> torch.dtype:
    """What a network computes in while it is trained: where nobody asked, small steps stay in float32.

    Args:
        machine: How the run is executed.
        device: Of this process.
        operations: Floating-point operations of a step.
    """
    if machine.precision == "auto" and operations < SMALL_STEP:
        return torch.float32
    return compute_dtype(machine.precision, device)


def begin_state(
    network: nn.Module,
    shape: tuple[int, ...],
    settings: TrainingSettings,
    machine: MachineSettings,
    device: torch.device,
    processes: Processes = ALONE,
    companion: Companion | None = None,
    whole: bool = False,
    recordable: bool = False,
) -> TrainState:
    """The state of a run at its first step, with the network brought to its place, in place.

    Args:
        network: F(x, noise_level, cond), on the processor.
        shape: Of one sample of its input.
        settings: Of the run.
        machine: How it is executed.
        device: Of this process.
        processes: That train together.
        companion: What goes beside the network.
        whole: Whether a batch cannot be worked on in parts.
        recordable: Whether a GPU may record its gradients.

    Raises:
        BadOption: The batch does not fit in memory, there are more processes than samples, or the network cannot be checkpointed.
    """
    first, last = processes.share(settings.batch_size)
    operations = step_operations(network, shape, settings.batch_size)
    dtype = training_dtype(machine, device, operations)
    sharded = machine.parallel == "fsdp" and processes.count > 1
    if machine.activation_checkpointing:
        checkpoint_blocks(network)
    records = machine.cuda_graphs and device.type == "cuda" and not machine.activation_checkpointing
    free = free_bytes(device, processes.local_count)
    processes.wait()  # until all have looked: what one takes another would count as gone
    if free is not None:
        sharers = processes.count if sharded else 1
        recorded = records and recordable and processes.count == 1
        size, averages = last - first, len(settings.averages)
        twin = network if dtype == torch.float32 else without_memory(network)
        lower(twin, dtype)
        check_memory(
            twin, shape, size, machine.micro_batch, free, machine.keeps_as(device), sharers, averages, whole, recorded
        )
    if sharded:
        shard(network, dtype, processes, device)
    else:
        network.to(device)
    state = TrainState(network, settings, dtype, processes, None if companion is None else companion.to(device))
    state.operations = operations
    state.memory.records = records
    if machine.compile is True:
        compile_network(network)
    return state


def checkpoint_blocks(network: nn.Module) -> None:
    """Makes a network forget what happens inside its blocks, and work it out again on the way back; in place.

    References:
        Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016), https://arxiv.org/abs/1604.06174

    Raises:
        BadOption: It names no blocks.
    """
    from torch.utils.checkpoint import checkpoint

    blocks = network.checkpointed_blocks() if isinstance(network, (Network, Autoencoder)) else ()
    if not blocks:
        kind = getattr(network, "registered_name", type(network).__name__)
        raise BadOption(f"machine.activation_checkpointing: network {kind!r} has no blocks to forget: leave it false")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
