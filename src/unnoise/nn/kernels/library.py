"""The kernels as a shared library, compiled for this very machine when first asked for.

They have a plain C interface and need no header of torch, so they are built in a second or two and fit every version of it. What
was built is kept in the user's cache, by a name that changes with the source, the compiler and the processor. With
UNNOISE_KERNELS=0 in the environment there are none, and torch does everything.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ...files import cache_folder

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob("*.cpp")))
HEADERS = tuple(sorted(FOLDER.glob("*.h")))

# Not -ffast-math: numbers that are none must stay so, for a run that diverges is told by them.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
X86 = ("-march=native", "-mprefer-vector-width=512")
OTHERS = ("-mcpu=native",)

# Loops are shared out by OpenMP. Linked without it they find the threads that torch has brought along, which is what GCC's code
# does on Linux; else by the OpenMP of the compiler; else there is one thread.
WAYS = ((("-fopenmp",), ()), (("-fopenmp",), ("-fopenmp",)), (("-fopenmp-simd",), ()), ((), ()))


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no C++ compiler, and torch must do without them."""
    if os.environ.get("UNNOISE_KERNELS") == "0":
        return None
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
        flags = (*FLAGS, *(X86 if platform.machine() in ("x86_64", "AMD64") else OTHERS))
        parts = [version, _processor(), repr((flags, WAYS)).encode(), *(p.read_bytes() for p in (*SOURCES, *HEADERS))]
        target = cache_folder() / "kernels" / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.so"
        if target.exists():
            return ctypes.CDLL(str(target))
        return _built(compiler, flags, target)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def _processor() -> bytes:
    """What tells processors apart that cannot run each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.lower().startswith((b"flags", b"features"))), b"")


def _built(compiler: str, flags: tuple[str, ...], target: Path) -> ctypes.CDLL | None:
    """The library, built in the first way that can be built and loaded, and kept if its folder can be written to."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = target.parent
    except OSError:
        place = None  # for this process alone, then
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for compiling, linking in WAYS:
            made = Path(folder) / target.name
            try:
                _build([compiler, *flags, *compiling], [compiler, "-shared", *linking], made)
                found = ctypes.CDLL(str(made))
            except (OSError, subprocess.SubprocessError):
                continue
            if place is not None:
                os.replace(made, target)  # whole, whoever else builds it at this moment
            return found
    return None


def _build(compiling: list[str], linking: list[str], made: Path) -> None:
    objects = [made.with_name(f"{source.stem}.o") for source in SOURCES]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [
        subprocess.Popen([*compiling, "-c", str(source), "-o", str(path)], **quiet)  # type: ignore[call-overload]
        for source, path in zip(SOURCES, objects, strict=True)
    ]
    failed = [process for process in running if process.wait()]
    if failed:
        raise subprocess.SubprocessError("the kernels do not compile")
    subprocess.run([*linking, *map(str, objects), "-o", str(made)], check=True, timeout=300, **quiet)  # type: ignore[call-overload]


_SLACK = 512
"""Bytes, of which glibc needs some beside a block to hand it out on a border of 64."""


def passing(x: Tensor, *shape: int) -> Tensor:
    """Room for numbers of the kind of x that is soon given back, of that shape, as torch's `new_empty` has it.

    It takes a little more than it needs, so that what stays can be put where it was: glibc puts a block that lies on a border
    only into a gap that is larger, and memory would fill with gaps that fit nothing.
    """
    size = math.prod(shape)
    return x.new_empty(size + _SLACK // x.element_size())[:size].view(shape)


def passing_like(x: Tensor) -> Tensor:
    """The same of the shape of x, laid out as x is, which fills one piece of memory."""
    return passing(x, x.numel()).as_strided(x.shape, x.stride())


def pointer(x: Tensor | None) -> ctypes.c_void_p | None:
    """Where the numbers of a tensor lie; null for none.

    Raises:
        RuntimeError: It lies on another device, where a kernel would read what is not there.
    """
    if x is None:
        return None
    if x.device.type != "cpu":
        raise RuntimeError(
            f"expected all tensors on the processor, but one is on {x.device}: move the network as a whole"
        )
    return ctypes.c_void_p(x.data_ptr())


_MEANT: ContextVar[str] = ContextVar("meant", default="cpu")


@contextmanager
def meant_for(kind: str) -> Iterator[None]:
    """Within it, tensors without memory stand for those on a device of that kind, "cuda" for one; elsewhere for the processor's."""
    token = _MEANT.set(kind)
    try:
        yield
    finally:
        _MEANT.reset(token)


def on_processor(x: Tensor) -> bool:
    """Whether a tensor lies in the memory of the processor, or has no memory and stands for one that does."""
    return x.device.type == "cpu" or (x.device.type == "meta" and _MEANT.get() == "cpu")


_COUNTED: ContextVar[bool] = ContextVar("counted", default=False)


@contextmanager
def counting() -> Iterator[None]:
    """Within it torch's own, documented operations alone are used, for one who counts them."""
    token = _COUNTED.set(True)
    try:
        yield
    finally:
        _COUNTED.reset(token)


def counted() -> bool:
    """Whether somebody counts what is computed."""
    return not torch.compiler.is_compiling() and _COUNTED.get()


def followed() -> bool:
    """Whether somebody follows what is computed who knows torch's own operations only.

    That is a compiler, torch.func, dual numbers, or a counter.
    """
    return (
        torch.compiler.is_compiling()
        or bool(torch._C._are_functorch_transforms_active())
        or torch.autograd.forward_ad._current_level >= 0
        or counted()
    )
