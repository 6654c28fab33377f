"""A model that no single process holds: every process has a share of each weight, and all are together while a layer works.

References:
    PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel (Zhao et al., 2023), https://arxiv.org/abs/2304.11277
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.base import Network
from ..precision import lower
from .parallel import Processes


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def shard(network: nn.Module, dtype: torch.dtype, processes: Processes, device: torch.device) -> None:
    """Brings a network to a device and spreads its weights over all processes, in place, block by block.

    Weights stay in float32 and are sent in `dtype`; gradients are summed in float32. A block is on the device whole only until it
    is spread, so that a network may be larger than the device.

    Args:
        network: Its `checkpointed_blocks()` are gathered one at a time; what is `asked_alone()` stays whole.
        dtype: What the network computes in.
        processes: At least two.
        device: Of this process; of GPUs the current one.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    low = dtype if dtype != torch.float32 else None
    # Inputs are cast by the denoiser: noise levels must stay in float32.
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(device.type, (processes.count,))
    blocks = network.checkpointed_blocks() if isinstance(network, Network) else ()
    apart = network.asked_alone() if isinstance(network, Network) else ()
    for module in apart:
        lower(module.to(device), dtype)  # `fully_shard` moves what it spreads, and leaves these
    whole_ones = {parameter for module in apart for parameter in module.parameters()}
    for module in (*blocks, network):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=whole_ones)
    if low is not None:
        network.lowered_to = low  # type: ignore[assignment]
    network.works_together = True  # type: ignore[assignment]


def gathered_bytes(network: nn.Module, dtype: torch.dtype) -> int:
    """The most bytes that a process holds of whole weights and their gradients while a network that was spread out works.

    What stands in no block is together for the whole step, and of blocks two are: the one at work, and the next, which is sent
    meanwhile.

    Args:
        network: As it was before it was spread.
        dtype: What it computes in.
    """
    blocks, rest = _spread(network)
    return 2 * dtype.itemsize * (rest + 2 * max(blocks, default=0))


def sent_bytes(network: nn.Module, dtype: torch.dtype, count: int, passes: int = 1) -> float:
    """Bytes that a process sends in a step of a network that is spread out.

    Rings pass on (n - 1) / n of all that is brought together or summed: blocks once for each way, what stands in none once, and
    gradients in float32.

    Args:
        network: As it was before it was spread.
        dtype: What it computes in.
        count: Processes.
        passes: Micro batches of a step.
    """
    blocks, rest = _spread(network)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return passes * (dtype.itemsize * (2 * sum(blocks) + rest) + 4 * learned) * (count - 1) / count


def _spread(network: nn.Module) -> tuple[list[int], int]:
    """How many weights each block has, and how many stand in none; without those that every process keeps."""
    weights = sum(p.numel() for p in network.parameters())
    if not isinstance(network, Network):
        return [], weights
    blocks = [sum(p.numel() for p in block.parameters()) for block in network.checkpointed_blocks()]
    apart = sum(p.numel() for part in network.asked_alone() for p in part.parameters())
    return blocks, weights - sum(blocks) - apart


def forget_gathered(network: nn.Module) -> None:
    """Lets go of the whole weights that a network keeps after a forward pass alone: they are about to change."""
    forget: Any = getattr(network, "reshard", None)
    if forget is not None:
        forget()


def like(parameter: Tensor, part: Tensor) -> Tensor:
    """This process's part of something that is spread as a parameter is, as the whole."""
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def part_of(parameter: Tensor, whole: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of a parameter."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return whole
    spread = distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    return local(spread)


def whole(tensors: Mapping[str, Tensor], wanted: bool = True) -> dict[str, Tensor]:
    """All of some sharded tensors, on the processor, a message to all for each; those that are not sharded as they are.

    Args:
        tensors: By name, the same in all processes, which all call this.
        wanted: Whether this process keeps any; the result is empty otherwise.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        gather: Any = getattr(tensor, "full_tensor", None)
        complete = tensor if gather is None else gather()
        if wanted:
            found[name] = complete if gather is None else complete.cpu()
    return found
