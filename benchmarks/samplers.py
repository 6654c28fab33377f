"""Samplers beside those of other libraries: error per network call, and what a step costs besides the network.

Accuracy: two Gaussian mixtures, whose denoiser is known exactly, under three noise schedules. Every method starts from the
same noise; its error is the RMSE of the end point to that of the exact ODE. Peers are taken at the best of all their
samplers and grids, chosen afresh for every cell (the figure is their best over hundreds of configurations); unnoise at the
one sampler and grid for that number of calls that stands in `FIXED`, the same for every problem.

Overhead: each library's own loop around a denoiser that is one multiplication, in turns within one process.

    python benchmarks/samplers.py [--accuracy] [--tuned] [--overhead] [--quick] [--zoo] [--json samplers.json]

Peers that are not installed are named and left out. To install them all, without what they do not need here (no torchvision):

    pip install --no-deps diffusers==0.42.1 azula==0.11.1 k-diffusion==0.1.1.post1 smalldiffusion==0.5.0 flow_matching==1.0.10 \\
        torchdiffeq torchsde trampoline accelerate psutil tqdm einops regex requests importlib_metadata zipp huggingface_hub \\
        hf-xet truststore httpx httpx2 httpcore httpcore2 h11 anyio sniffio idna certifi urllib3 charset_normalizer
"""

import argparse
import json
import math
import os
import platform
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import _accuracy
import _overhead
import _tuned
import torch
from _peers import installed
from _problems import check_against_oracle

STARTS, QUICK_STARTS = 10_000, 2_000


def accuracy(arguments, libraries):
    """Prints the table of every problem; its rows go to the caller as soon as they are there."""
    error = check_against_oracle()
    print(f"fast denoiser against unnoise's oracle: {error:.1e} apart at most\n")
    assert error < 1e-10
    known = _known(arguments.known)
    met = []
    for problem in _wanted(arguments):
        begin = time.perf_counter()
        rows = _one_problem(problem, libraries, known.get(problem.name), arguments.zoo)
        met += [row["met"] for row in rows if row["met"] is not None]
        print(f"   ({time.perf_counter() - begin:.0f} s)\n", flush=True)
        yield rows
    if met:
        print(f"targets met: {sum(met)} of {len(met)}\n")


def _wanted(arguments):
    problems = _accuracy.problems(QUICK_STARTS if arguments.quick else STARTS)
    return [problem for problem in problems if (arguments.problem or "") in problem.name]


def _known(path):
    """The peers' rows that an earlier run wrote, by problem and number of calls."""
    if not path:
        return {}
    with open(path) as file:
        rows = json.load(file)["accuracy"]
    found = {}
    for row in rows:
        found.setdefault(row["problem"], {})[row["nfe"]] = row["peers"]
    return found


def _one_problem(problem, libraries, known, zoo):
    print(f"{problem.name}, {len(problem.z)} starts, sigma / alpha from {problem.k_max:.4g}")
    print(f"{'NFE':>4} {'unnoise':>9} {'best peer':>10} {'ratio':>6} {'at most':>8} {'met':>4}  who, then the next")
    peers = known or _accuracy.best(_accuracy.peers(problem, libraries), problem)
    everyone = _accuracy.best(_accuracy.zoo(), problem) if zoo else {}
    rows = []
    for nfe in _accuracy.NFES:
        method = _accuracy.ours(*_accuracy.FIXED[nfe])
        calls, rmse = _accuracy.measure(method, problem, problem.z, nfe) or (0, math.inf)
        row = {"problem": problem.name, "nfe": nfe, "unnoise": rmse, "calls": calls, "sampler": method.name}
        row |= {"peers": peers[nfe], "target": _accuracy.TARGETS[nfe], "ratio": None, "met": None}
        if peers[nfe]:
            row["ratio"] = rmse / peers[nfe][0]["rmse"]
            row["met"] = row["ratio"] <= row["target"]
        if zoo:
            row["zoo"] = everyone[nfe]
        rows.append(row)
        _print_row(row)
    return rows


def _print_row(row):
    who = "; ".join(f"{peer['library']} {peer['name']} {peer['rmse']:.2g}" for peer in row["peers"][:2])
    line = f"{row['nfe']:>4} {row['unnoise']:>9.3g}"
    if row["peers"]:
        line += f" {row['peers'][0]['rmse']:>10.3g} {row['ratio']:>6.2f} {row['target']:>8} {'yes' if row['met'] else 'NO':>4}"
    print(f"{line}  {who}")
    for best in row.get("zoo", []):
        print(f"     of all samplers of unnoise: {best['rmse']:.3g} by {best['name']}")


def tuned(arguments, libraries):
    """Prints what times and weights of a run's own gain over the fixed grid."""
    print(
        f"\ntuned times and weights against the fixed grid, {_tuned.STARTS} starts of their own, at most {_tuned.TARGET}"
    )
    for problem in _wanted(arguments):
        rows = []
        for nfe in _tuned.NFES:
            fixed, fitted, sampler = _tuned.tuned(problem, nfe)
            met = fitted <= _tuned.TARGET * fixed
            described = f"predictor {sampler.predictor}, corrector {sampler.corrector}, pivot {sampler.pivot:.3g}"
            described += ", weights" if sampler.weights else ""
            line = f"{problem.name:<16} {nfe:>3} {fixed:>9.3g} {fitted:>9.3g} {fitted / fixed:>6.2f}"
            print(f"{line} {'yes' if met else 'NO':>4}  {described}", flush=True)
            rows.append({"problem": problem.name, "nfe": nfe, "fixed": fixed, "tuned": fitted, "met": met})
        yield rows


def overhead(arguments, libraries):
    """Prints what a step costs; the rows of a kind go to the caller as soon as they are there."""
    turns, steps = (7, 200) if arguments.quick else (11, 500)
    shape = None
    for found in _overhead.measure(libraries, turns=turns, steps=steps):
        if found[0]["shape"] != shape:
            shape = found[0]["shape"]
            print(f"\nshape {tuple(shape)}, median of {turns} turns of {steps} steps")
            print(f"{'kind':<10} {'us/step':>9} {'steps/s':>9} {'to fastest peer':>16}  whose")
        for row in found:
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            line = f"{row['kind']:<10} {row['us']:>9.1f} {1e6 / row['us']:>9.0f} {ratio:>16}  {row['name']}"
            print(line, flush=True)
        yield found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", action="store_true", help="only the error per network call")
    parser.add_argument(
        "--tuned", action="store_true", help="only what tuned times and weights gain over the fixed grid"
    )
    parser.add_argument("--overhead", action="store_true", help="only the cost of a step")
    parser.add_argument("--quick", action="store_true", help="2,000 starts instead of 10,000, fewer and shorter turns")
    parser.add_argument(
        "--zoo", action="store_true", help="also every sampler of unnoise that draws no noise, on every grid"
    )
    parser.add_argument("--problem", help='only problems with this in their name: "gmm2", "gmm64 edm"')
    parser.add_argument("--known", metavar="JSON", help="take the accuracy of the peers from an earlier run's file")
    parser.add_argument("--json", help="write everything to this file")
    arguments = parser.parse_args()
    found, missing = installed()
    wanted = [part for part in (accuracy, tuned, overhead) if getattr(arguments, part.__name__)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("peers: " + (", ".join(f"{name} {release}" for name, release in found.items()) or "none"))
    for name, why in missing.items():
        print(f"left out: {name} ({why})")
    result = {"peers": found, "missing": missing, "threads": torch.get_num_threads(), "quick": arguments.quick}
    for part in wanted or (accuracy, tuned, overhead):
        for rows in part(arguments, list(found)):
            result.setdefault(part.__name__, []).extend(rows)
            if arguments.json:  # after every table: the whole takes long
                with open(arguments.json, "w") as file:
                    json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
