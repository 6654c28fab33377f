"""What a step of training takes in memory, worked out before it is taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BadOption, OutOfMemory
from ..nn.base import Condition
from ..nn.forgetting import forgotten
from ..nn.kernels.library import meant_for
from ..precision import dtype_of
from .sharded import gathered_bytes
from .threads import inputs_of, place_to_try

MARGIN = 1.15
"""What a step takes beside weights and kept activations (buffers of the layer at work), as a factor."""


def without_memory(network: nn.Module) -> nn.Module:
    """A copy of a network whose weights take no memory, on the "meta" device."""
    held: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in network.parameters()
    }
    return copy.deepcopy(network, held | {id(b): b.to("meta") for b in network.buffers()})


def kept_bytes(
    network: nn.Module, shape: tuple[int, ...], batch_size: int, cond: Condition | None = None, device: str = "cpu"
) -> int:
    """The bytes of activations that a forward pass keeps for the way back.

    Args:
        network: F(x, noise_level, cond); it may stand on the "meta" device.
        shape: Of one sample of its input.
        batch_size: Samples.
        cond: Of that many samples.
        device: The kind of device that will compute: a processor keeps less, by kernels of its own.
    """
    from torch.func import functional_call

    seen: dict[int, int] = {}
    place = place_to_try(network, shape, batch_size) if device == "cpu" else torch.device("meta")
    weights = {name: p.detach().to(place).requires_grad_(p.requires_grad) for name, p in network.named_parameters()}
    buffers = {name: b.clone().to(place) for name, b in network.named_buffers()}
    own = {tensor.untyped_storage()._cdata for tensor in (*weights.values(), *buffers.values())}
    alive: list[torch.UntypedStorage] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and all(storage._cdata != each._cdata for each in spared):
            seen[storage._cdata] = storage.nbytes()
            alive.append(storage)  # so that no other takes its place
        return tensor

    dtype = getattr(network, "lowered_to", None) or next(iter(weights.values())).dtype
    x = torch.zeros(batch_size, *shape, dtype=dtype, device=place, requires_grad=True)
    told = None if cond is None else {name: value[:batch_size].to(place) for name, value in cond.items()}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with meant_for(device), forgotten() as spared, hooks, torch.random.fork_rng(devices=[]):
        functional_call(network, {**weights, **buffers}, inputs_of(network, x, told))
    return sum(seen.values())


def state_bytes(network: nn.Module, averages: int = 1) -> int:
    """The bytes of a run's state: masters, gradients, averages, two moments, and what the network computes with beside them.

    Args:
        network: Lowered or not.
        averages: How many averages of the weights are kept.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    own = sum(p.numel() * p.element_size() for p in network.parameters() if not p.requires_grad or p.element_size() < 4)
    # The gradient of every weight is made by the backward pass in the weight's own dtype before it is summed.
    backward = sum(p.numel() * p.element_size() for p in trained)
    return own + backward + 4 * (4 + averages) * sum(p.numel() for p in trained)


def free_bytes(device: torch.device | None = None, sharers: int = 1) -> int | None:
    """What a process may still take of a device's memory; None where nobody says.

    Args:
        device: A GPU; by default the processor, whose memory Linux and its control groups tell of.
        sharers: Processes that take equal parts of the processor's memory; a GPU is one process's own.
    """
    if device is not None and device.type == "cuda":
        # What torch has set aside and does not use is free for it, and for nobody else.
        aside = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + aside
    if device is not None and device.type == "mps":
        with suppress(AttributeError):  # an older torch does not tell
            return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device is not None and device.type != "cpu":
        return None
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            left = int((group / limit).read_text()) - int((group / used).read_text())
            found.append(left + _reclaimable(group / limit))
    return min(found) // sharers if found else None


def _reclaimable(limit: Path) -> int:
    """Cached files count as used by a control group, and are given up when memory is wanted."""
    with suppress(OSError, ValueError, StopIteration):
        lines = (limit.parent / "memory.stat").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(("inactive_file", "total_inactive_file"))).split()[1])
    return 0


def most_at_once(size: int, micro_batch: int, halved: bool = False) -> int:
    """The most samples of a process's part of a batch that go through the network at once.

    Args:
        size: Of that part.
        micro_batch: Most samples at once; 0 for no limit.
        halved: Whether a part that fits at once is split in two, to measure the gradient of a half.
    """
    most = min(micro_batch or size, size)
    return -(-most // 2) if halved and most == size > 1 else most


def samples_held(size: int, micro_batch: int, recorded: bool = False) -> int:
    """Of how many samples there are activations at the same time.

    Each recording keeps the memory in which it is replayed, and there is one for every number of samples that come at once: a
    part of a batch, its rest, and the halves of steps that are logged. That they had one memory together would change little: the
    first steps of each size are made before it is recorded, in memory of their own beside what the others keep.

    Args:
        size: See `most_at_once`.
        micro_batch: See `most_at_once`.
        recorded: Whether gradients are recorded.
    """
    parts = [most_at_once(size, micro_batch, halved) for halved in (False, True)]
    sizes = {*parts, *(size % part for part in parts)}
    return sum(sizes) if recorded else max(sizes)


def check_memory(
    network: nn.Module,
    shape: tuple[int, ...],
    batch_size: int,
    micro_batch: int,
    free: int | None,
    device: str = "cpu",
    sharers: int = 1,
    averages: int = 1,
    whole: bool = False,
    recorded: bool = False,
) -> None:
    """Refuses a batch that does not fit in memory, before anything is lost.

    Args:
        network: As it will compute.
        shape: Of one sample of its input.
        batch_size: Samples of this process.
        micro_batch: Most samples at once; 0 for no limit.
        free: Bytes that may be taken; None where nobody knows.
        device: The kind of device that will compute.
        sharers: Processes that share the weights.
        averages: How many averages of the weights are kept.
        whole: Whether a batch cannot be worked on in parts.
        recorded: Whether gradients are recorded, for every number of samples that come at once.

    Raises:
        BadOption: It does not fit; the largest number of samples that does is named.
    """
    if free is None:
        return
    at_once, held = most_at_once(batch_size, micro_batch), samples_held(batch_size, micro_batch, recorded)
    one, two = (kept_bytes(network, shape, n, device=device) for n in (1, 2))
    each, fixed = MARGIN * max(two - one, 1), MARGIN * max(2 * one - two, 0) + state_bytes(network, averages) / sharers
    if sharers > 1:
        fixed += gathered_bytes(network, dtype_of(network) or torch.float32)
    if fixed + held * each <= free:
        return
    room = math.floor((free - fixed) / each)
    most = next((n for n in range(min(at_once, room), 0, -1) if samples_held(batch_size, n, recorded) <= room), 0)
    kept = " and what is recorded of their steps" if recorded else ""
    need = _gigabytes(fixed + held * each)
    needed = f"{at_once} samples at once{kept} need about {need}, and {_gigabytes(free)} are free"
    if most < 1:
        raise BadOption(
            f"{needed}: not even one sample fits; take a smaller network or machine.activation_checkpointing=true"
        )
    ways = [] if whole else [f"machine.micro_batch={most}, which gives the same result"]
    if not recorded:  # of a smaller batch the halves are recorded, too
        ways.append(f"training.batch_size={most}")
    elif at_once <= room:
        ways.append("machine.cuda_graphs=false")
    raise BadOption(f"{needed}: the largest number that fits is {most}; add {', or '.join(ways)}")


@contextmanager
def enough_for(samples: int, whole: bool = False) -> Iterator[None]:
    """Within it, that memory runs out is told in one line, with what to try.

    Args:
        samples: That go through the network at once.
        whole: Whether a batch cannot be worked on in parts.

    Raises:
        OutOfMemory: It ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(_what_to_try(samples, whole)) from error


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is no more memory: of a GPU, of the processor, or for numpy."""
    # Torch has an error of its own for GPUs alone; on the processor it is a RuntimeError of these words.
    own = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return own or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _what_to_try(samples: int, whole: bool) -> str:
    thrifty, half = "machine.activation_checkpointing=true", samples // 2
    if half < 1:
        return f"the memory does not suffice for one sample at once: take {thrifty} or a smaller network"
    short = f"the memory does not suffice for {samples} samples at once"
    if whole:
        return f"{short}: add {thrifty}, or begin another run with training.batch_size={half}"
    in_parts = f"machine.micro_batch={half}, which gives the same result"
    return f"{short}: add {in_parts}; the same command then goes on from the last checkpoint"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
