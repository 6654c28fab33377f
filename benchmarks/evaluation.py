"""The Fréchet distance of two clouds of features: unnoise beside SciPy's matrix root and torchmetrics, same features.

Features are float32, correlated, with variances over five orders of magnitude and a floor at 0, as networks give them. All
start from the same features and end with the number. They run in turns within one process, so that whatever else the
machine does hits all; a ratio is the median over the turns: of the distance from the moments, where the forms differ, and of
all, where every way spends most of its time on the same product for the covariances. Memory is what a process that does
nothing else needs beyond the features at most, each way in a process of its own.

    python benchmarks/evaluation.py [--samples 10000] [--width 768] [--turns 5] [--quick] [--json evaluation.json]
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import scipy.linalg
import torch

from unnoise.evaluation.metrics import _rows
from unnoise.evaluation.metrics.base import Cloud, metrics
from unnoise.evaluation.metrics.moments import Moments, frechet_distance

TARGET = 3.0


def features(samples, width, seed):
    """Shape (samples, width), float32, made without a copy of all."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    scales, rows = (1 + 0.1 * seed) * torch.logspace(0, -2.5, width), torch.empty(samples, width)
    for part in rows.split(500):
        part.copy_(torch.relu((torch.randn(part.shape, generator=generator) * scales) @ mixing + 0.3))
    return rows


def our_moments(x):
    return Moments.of(_rows.blocks(x))


def numpys_moments(x):
    """As pytorch-fid and clean-fid write it."""
    rows = x.double().numpy()
    return rows.mean(0), np.cov(rows, rowvar=False)


def torchmetrics_moments(x):
    """As its FrechetInceptionDistance sums them, batch by batch, in float64."""
    total, products = torch.zeros(x.shape[1]).double(), torch.zeros(x.shape[1], x.shape[1]).double()
    for batch in x.split(1000):
        rows = batch.double()
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / len(x)
    return mean, (products - len(x) * torch.outer(mean, mean)) / (len(x) - 1)


def by_scipys_root(a, b):
    """As pytorch-fid and clean-fid write it."""
    root = scipy.linalg.sqrtm(a[1] @ b[1])
    return float(((a[0] - b[0]) ** 2).sum() + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root.real))


def by_torchmetrics(a, b):
    from torchmetrics.image.fid import _compute_fid

    return float(_compute_fid(*a, *b))


WAYS = {
    "unnoise": (our_moments, frechet_distance),
    "scipy": (numpys_moments, by_scipys_root),
    "torchmetrics": (torchmetrics_moments, by_torchmetrics),
}


def timed(name, x, y):
    """The number, and the seconds for the moments of both and for their distance."""
    moments, distance = WAYS[name]
    start = time.perf_counter()
    a, b = moments(x), moments(y)
    middle = time.perf_counter()
    value = distance(a, b)
    return value, middle - start, time.perf_counter() - middle


def memory(name, samples, width):
    """MB beyond the features, in a process of its own; known on Linux alone."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    command = [sys.executable, __file__, "--memory-of", name, "--samples", str(samples), "--width", str(width)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_memory(name, samples, width):
    x, y = features(samples, width, 0), features(samples, width, 1)
    timed(name, x[:64, :16], y[:64, :16])  # what libraries load once does not count
    # Not getrusage, whose greatest size a process inherits from the one that started it.
    Path("/proc/self/clear_refs").write_text("5")  # the greatest size so far is forgotten
    before = resident("VmRSS")
    timed(name, x, y)
    print(resident("VmHWM") - before)


def resident(kind):
    """MB of this process: now (VmRSS) or at most so far (VmHWM)."""
    return int(re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measure(samples, width, turns):
    """A row for every way that is installed."""
    x, y = features(samples, width, 0), features(samples, width, 1)
    taken = {}
    for turn in range(turns + 1):
        for name in WAYS:
            try:
                found = timed(name, x, y)
            except ImportError:
                continue
            if turn:  # the first turn warms up
                taken.setdefault(name, []).append(found)
    for name, turns_of in taken.items():
        row = {"name": name, "value": turns_of[0][0], "megabytes": memory(name, samples, width)}
        for part, seconds in (
            ("moments", lambda t: t[1]),
            ("distance", lambda t: t[2]),
            ("all", lambda t: t[1] + t[2]),
        ):
            row[part] = statistics.median(map(seconds, turns_of))
            pairs = zip(turns_of, taken["unnoise"], strict=True)
            row[f"{part}_ratio"] = statistics.median(seconds(theirs) / seconds(ours) for theirs, ours in pairs)
        yield row
    start = time.perf_counter()
    metrics.build("fid").measure(Cloud(x), Cloud(y))
    yield {"name": "unnoise's metric", "all": time.perf_counter() - start}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="of each side")
    parser.add_argument("--width", type=int, default=768, help="features of a sample")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="3,000 samples of 256 features, two turns")
    parser.add_argument("--json", help="write everything to this file")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.width, arguments.turns = 3000, 256, 2
    if arguments.memory_of:
        print_memory(arguments.memory_of, arguments.samples, arguments.width)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"FID of {arguments.samples:,} against {arguments.samples:,} samples of {arguments.width} features")
    print(
        f"{'seconds':<14} {'moments':>8} {'distance':>9} {'all':>6}   {'distance':>9} {'all':>5} {'MB':>6}  value",
        flush=True,
    )
    *rows, whole = measure(arguments.samples, arguments.width, arguments.turns)
    for row in rows:
        line = f"{row['name']:<14} {row['moments']:>8.2f} {row['distance']:>9.2f} {row['all']:>6.2f}"
        line += f"   {row['distance_ratio']:>8.1f}x {row['all_ratio']:>4.1f}x {row['megabytes']:>6.0f}"
        print(f"{line}  {row['value']:.10g}")
    print(f"the metric fid, with its interval and without the bias of few samples: {whole['all']:.1f} s")
    scipys = next(row for row in rows if row["name"] == "scipy")
    for part in ("distance", "all"):
        met = "yes" if scipys[f"{part}_ratio"] >= TARGET else "NO"
        print(f"SciPy's form, {part}: {scipys[f'{part}_ratio']:.1f} times as long, at least {TARGET}: {met}")
    if arguments.json:
        found = {
            "samples": arguments.samples,
            "width": arguments.width,
            "target": TARGET,
            "rows": rows,
            "metric": whole,
        }
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
