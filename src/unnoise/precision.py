"""In which numbers a network computes, and how the machine keeps its memory and shares its processors meanwhile.

Weights, gradients, averages and losses are float32 everywhere; what may be coarser is the arithmetic inside a network. bfloat16
has float32's range and 8 bits of precision, and hardware made for it multiplies two to eight times as many numbers a second.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from .errors import BadOption

Precision = Literal["auto", "fp32", "bf16"]

# Options of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_KEEP = 2**31 - 1  # bytes; the largest number that it takes

THREADS = "UNNOISE_THREADS"
"""The environment variable by which a person says how many threads each process uses, whoever started it."""


def find_device(name: str = "auto", local_rank: int = 0, option: str = "device") -> torch.device:
    """A device of this machine.

    Args:
        name: cpu, cuda, cuda:1 or mps; "auto" takes a GPU where there is one.
        local_rank: Which of several processes asks, each of which gets a GPU of its own.
        option: What the name was given as, for messages.

    Raises:
        BadOption: There is no such device here, or more processes than GPUs.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return _own_gpu(local_rank)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadOption(f"{option}: expected auto, cpu, cuda, cuda:N or mps, got {name!r}") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise BadOption(f"{option}: there is no {name} on this machine: take auto or cpu")
    if device.type == "cuda" and device.index is None:
        return _own_gpu(local_rank)
    return device


def _own_gpu(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise BadOption(
            f"{local_rank + 1} processes or more were started on a machine with {count} GPU{'s' * (count > 1)}: "
            f"start at most --nproc-per-node={count}, or add machine.device=cpu"
        )
    return torch.device("cuda", local_rank)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # By name: they are torch's own, and another version may lack one.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The numbers that a network computes in.

    Args:
        precision: "fp32", "bf16", or "auto" for bf16 wherever the hardware is faster with it.
        device: Where the network stands.

    Raises:
        BadOption: There is no such precision.
    """
    if precision not in get_args(Precision):
        raise BadOption(f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}")
    low = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.bfloat16 if low else torch.float32


def lower(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights of a network in place, but for those of normalisations, which are few and matter.

    A module of another kind stays in float32 if it says `keeps_float32 = True`.

    Args:
        network: What will compute in `dtype`.
        dtype: Usually bfloat16.
    """
    if dtype == torch.float32:
        return
    kept = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    for module in network.modules():
        if isinstance(module, kept) or getattr(module, "keeps_float32", False):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
    network.lowered_to = dtype  # type: ignore[assignment]


def dtype_of(network: nn.Module) -> torch.dtype | None:
    """What a network computes in: what it was lowered to, or the dtype of its first weight; None where it has none."""
    lowered: torch.dtype | None = getattr(network, "lowered_to", None)
    if lowered is not None:
        return lowered
    first = next(network.parameters(), None)
    return None if first is None else first.dtype


def keep_freed_memory() -> bool:
    """Asks the C library to keep memory that was freed, since a step of training frees and asks for the same again.

    Without it glibc hands large blocks back to the system, and every step pays for clearing their pages anew.

    Returns:
        Whether the C library took it; only glibc does.
    """
    return _mallopt({_MMAP_THRESHOLD: _KEEP, _TRIM_THRESHOLD: _KEEP, _TOP_PAD: 2**26})


def _mallopt(options: Mapping[int, int]) -> bool:
    """Sets options of the C library's memory; whether it took all of them, which only glibc does."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) for option, value in options.items())


def settle_in() -> None:
    """What a process does once before it computes for long: it keeps its memory, and uses the processors that it has."""
    keep_freed_memory()
    fit_threads()


def keep_little() -> None:
    """What a process does once that answers many people for days: what it keeps for later does not grow.

    oneDNN keeps 256 layers ready, each for one number of rows, and not 1,024, unless the environment says how many: of a small
    U-Net, a thousand take 200 MB. It counts before the first convolution. And threads take their memory from two heaps that they
    share, unless the environment says how many: glibc gives each thread one of its own, and what is free there no other can use.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    if "MALLOC_ARENA_MAX" not in os.environ:
        _mallopt({_ARENA_MAX: 2})


def fit_threads() -> int:
    """Lets torch use no more threads than there are processors for this process, unless a person said how many.

    Torch counts the processors of the machine. Where a container gets the time of two out of sixty-four, sixty-four threads wait
    for each other at the end of every layer. And torchrun sets OMP_NUM_THREADS=1 for several processes where nobody has set it,
    so that of two processes on sixty-four cores each would use one: beside other processes of its machine a 1 is taken for
    torchrun's, and they share the cores out. UNNOISE_THREADS is always a person's, and OMP_NUM_THREADS otherwise.

    Returns:
        The number of threads.

    Raises:
        BadOption: UNNOISE_THREADS is no number of threads.
    """
    told, beside = os.environ.get("OMP_NUM_THREADS"), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    paid = processors_paid_for()
    if THREADS in os.environ:
        torch.set_num_threads(_threads_told(os.environ[THREADS]))
    elif beside > 1 and told in (None, "1"):
        cores = cores_here() if paid is None else min(cores_here(), int(paid))
        torch.set_num_threads(max(1, cores // beside))
    elif told is None and paid is not None:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), int(paid))))
    return torch.get_num_threads()


def _threads_told(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise BadOption(f"{THREADS}: expected a number of threads, 1 or more, got {text!r}")
    return int(text)


def cores_here(machine: Path = Path("/sys/devices/system/cpu")) -> int:
    """How many cores this process may run on; two threads of one core count once, as torch counts them.

    Args:
        machine: Where Linux tells of processors; elsewhere each counts.
    """
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    with suppress(OSError):
        return len({(machine / f"cpu{number}/topology/thread_siblings_list").read_text() for number in mine})
    return len(mine)


def processors() -> int:
    """How many processors this process may use at once: those that it may run on, and no more than its container pays for."""
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    paid = processors_paid_for()
    return there if paid is None else max(1, min(there, int(paid)))


def processors_paid_for(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many processors' time the control group of this process gets; None where it is not limited.

    Args:
        groups: Where Linux tells of control groups, of the second version or the first.
    """
    with suppress(OSError, ValueError):
        quota, period = (groups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(quota) <= 0 else int(quota) / int(period)
    return None
