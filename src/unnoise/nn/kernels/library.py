"""The kernels as a shared library, compiled for this very machine when first asked for.

They have a plain C interface and need no header of torch, so they are built in a second or two and fit every version of it. What
was built is kept in the user's cache, by a name that changes with the source, the compiler and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from torch import Tensor

from ...files import cache_folder

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cpp")))

# Not -ffast-math: numbers that are none must stay so, for a run that diverges is told by them.
FLAGS = ("-O3", "-std=c++17", "-march=native", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
WIDE = ("-mprefer-vector-width=512",)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no C++ compiler with OpenMP, and torch must do without them."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
        flags = [*FLAGS, *(WIDE if platform.machine() in ("x86_64", "AMD64") else ())]
        parts = [version, _processor(), " ".join(flags).encode(), *(path.read_bytes() for path in SOURCES)]
        target = cache_folder() / "kernels" / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.so"
        if not target.exists():
            _build(compiler, flags, target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> bytes:
    """What tells processors apart that cannot run each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.lower().startswith((b"flags", b"features"))), b"")


def _build(compiler: str, flags: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [compiler, *flags, *map(str, SOURCES), "-o", str(made)]
        subprocess.run(command, capture_output=True, check=True, timeout=300)
        os.replace(made, target)  # whole, whoever else builds it at this moment


def pointer(x: Tensor) -> ctypes.c_void_p:
    """Where the numbers of a tensor lie."""
    return ctypes.c_void_p(x.data_ptr())
