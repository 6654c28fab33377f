"""One contender in a process of its own: builds it, makes a few steps, and prints what they took as the last line.

python _training_worker.py '{"part": "unet", "name": "azula UNet", "variant": "as shipped", "batch": 32, "steps": 2, "turns": 1}'
"""

import json
import os
import re
import sys
import time
import traceback
from pathlib import Path


def main():
    spec = json.loads(sys.argv[1])
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from _training_peers import NotBuilt

    try:
        found = TASKS[spec["part"]](spec)
    except (ImportError, NotBuilt) as error:
        found = {"missing": str(error).splitlines()[0]}
    except Exception as error:
        traceback.print_exc()
        found = {"missing": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print("\n" + json.dumps(found))


def everyone():
    """The contenders of every part, by name."""
    from _training_latent import LATENT
    from _training_networks import TRANSFORMERS, UNETS
    from _training_points import POINTS

    return {"unet": UNETS, "dit": TRANSFORMERS, "points": POINTS, "sd": LATENT}


def names(spec):
    """The names and variants of every part."""
    from _training_points import UNTIL

    found = {part: [[name, each.variants] for name, each in members.items()] for part, members in everyone().items()}
    return {**found, "until": UNTIL}


def contender(spec):
    """Seconds a step, operations of one, and the most memory that the process had."""
    import torch
    from _training_peers import mend_torchvision

    mend_torchvision()
    who = everyone()[spec["part"]][spec["name"]]
    torch.manual_seed(0)
    work = who.make(spec["variant"], spec["batch"])
    found = {"gflop_a_sample": None, "millions": None}
    if work.network is not None:
        found = {
            "gflop_a_sample": operations(work.network, work.inputs, work.calls or 3.0) / 1e9,
            "millions": sum(p.numel() for p in work.network.parameters()) / 1e6,
        }
    steps, turns, clock = work.steps, [], clock_of(spec)
    work = None
    begin = clock()
    next(steps)
    found["first_step"] = clock() - begin
    for _ in range(spec["warm"]):
        next(steps)
    for _ in range(spec["turns"]):
        begin = clock()
        for _ in range(spec["steps"]):
            next(steps)
        turns.append((clock() - begin) / spec["steps"])
    return {**found, "seconds": turns, "megabytes": most_memory(), "load": os.getloadavg()[0]}


def clock_of(spec):
    """Seconds: those that pass, or those of the processor by the number of threads."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    return time.perf_counter if spec["clock"] == "wall" else lambda: time.process_time() / threads


def operations(network, inputs, calls):
    """Floating-point operations of one sample: those of a forward pass, that many times."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()  # no dropout
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(*inputs)
    network.train()
    return calls * counter.get_total_flops()


def peak(spec):
    """GFLOP/s of what networks are made of, forward and backward where it is said."""
    import torch
    from torch.nn import functional

    from unnoise.precision import keep_freed_memory, multiplies_bf16

    keep_freed_memory()
    found, kinds = {}, {"fp32": torch.float32, "bf16": torch.bfloat16}
    if not multiplies_bf16(torch.device("cpu")):
        del kinds["bf16"]
    for kind, dtype in kinds.items():
        for side in (1024, 2048):
            a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            _best(found, f"matmul {kind}", 2 * side**3, lambda: torch.mm(a, b, out=out), spec)  # noqa: B023
        for layout, order in (("NCHW", torch.contiguous_format), ("channels last", torch.channels_last)):
            x = torch.randn(32, 128, 32, 32).to(dtype).contiguous(memory_format=order).requires_grad_()
            w = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=order).requires_grad_()
            gradient = torch.randn(32, 128, 32, 32).to(dtype).contiguous(memory_format=order)

            def both():
                y = functional.conv2d(x, w, padding=1)  # noqa: B023
                torch.autograd.grad(y, (x, w), gradient)  # noqa: B023

            _best(found, f"convolution {kind} {layout}", 6 * 32 * 32 * 32 * 9 * 128 * 128, both, spec)
    return {"rates": found, "load": os.getloadavg()[0]}


def _best(found, name, flop, work, spec):
    work()
    clock = clock_of(spec)
    for _ in range(spec["turns"]):
        begin = clock()
        work()
        found[name] = max(found.get(name, 0.0), flop / (clock() - begin) / 1e9)


def start(spec):
    """Seconds from the start of the process to the first update of a shipped recipe, by the modules that the command line uses."""
    import tempfile

    import unnoise.cli.train  # noqa: F401
    from unnoise.recipes.recipe import load_recipe
    from unnoise.recipes.run import Run
    from unnoise.training.loop import Stepped

    with tempfile.TemporaryDirectory() as folder:
        run = Run(load_recipe(spec["recipe"]), f"{folder}/run")
        for event in run.events():
            if isinstance(event, Stepped):
                float(event.loss)
                spent = time.time() - spec["began"] if spec["clock"] == "wall" else time.process_time()
                return {"seconds": spent, "load": os.getloadavg()[0]}
    return {"missing": "the run made no step"}


def until(spec):
    """Seconds of training until samples of the spiral are good."""
    from _training_peers import mend_torchvision
    from _training_points import until_good

    mend_torchvision()
    return until_good(spec["name"], spec["limit"], clock_of(spec))


def quality(spec):
    """One stage of the comparison at equal time."""
    from _training_peers import mend_torchvision
    from _training_quality import STAGES

    mend_torchvision()
    return STAGES[spec["stage"]](spec)


def most_memory():
    """MB of this process at most so far. Not getrusage where it can be helped, whose number a process inherits."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


TASKS = {
    "unet": contender, "dit": contender, "points": contender, "sd": contender,
    "names": names, "peak": peak, "start": start, "until": until, "quality": quality,
}  # fmt: skip

if __name__ == "__main__":
    main()
