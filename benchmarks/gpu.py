"""Training on one GPU beside diffusers: pictures a second, and the share of what the card's matrix units reach.

A step is the whole of it: the batch, noise, forward and backward pass, clipping, optimizer, moving average. Every contender has a
process of its own. All of them build and compile at once, since that takes minutes of processors and hardly any of the card;
then they are measured one after another. Arithmetic is counted by torch's FlopCounterMode, three forward passes a step, and held
against a product of two matrices of 8,192 x 8,192 in bfloat16 that is timed in between.

    python benchmarks/gpu.py [--only unet,dit] [--seconds 3] [--patience 300] [--hold] [--json gpu.json]

    unet     35.7 M weights on 32 x 32 x 3, the DDPM CIFAR-10 configuration, 128 pictures a step
    dit      DiT-B/2 on 32 x 32 x 4 latents, 256 a step

unnoise is measured plain, with recorded steps (machine.cuda_graphs), and compiled (machine.compile); diffusers as shipped, in
float32; given bf16 by autocast, a fused optimizer and channels-last order; and that compiled. What was measured is written at once,
and who is not ready in time is left out.
"""

import argparse
import contextlib
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BATCHES = {"unet": 128, "dit": 256}
CONTENDERS = [
    (part, *who)
    for part in BATCHES
    for who in (
        ("unnoise", ""), ("unnoise", "recorded"), ("unnoise", "compiled"),
        ("diffusers", "as shipped"), ("diffusers", "bf16"), ("diffusers", "bf16, compiled"),
    )
]  # fmt: skip
WARM = 12  # steps before anything is timed
AT_ONCE = 10  # steps between two looks at the clock
SIDE = 8192


def main():
    """Starts everybody, measures one after another, prints a table."""
    arguments = parsed()
    if arguments.task:
        return work(*json.loads(arguments.task), arguments)
    if arguments.device == "cuda" and not has_gpu():
        return print("there is no GPU here: nothing is measured")
    wanted = [each for each in CONTENDERS if each[0] in arguments.only.split(",")]
    everybody = [Contender(each, arguments) for each in wanted]
    if arguments.hold:
        input()
    end, found = time.perf_counter() + arguments.patience, []
    for each in everybody:
        if each.line(max(1.0, end - time.perf_counter())) is None:
            print(f"{each.name}: not ready, left out", file=sys.stderr, flush=True)
            each.process.kill()
            each.process.wait()
    rate = matmul_rate(arguments.device)
    for each in everybody:
        measured = each.measured(30 + 10 * arguments.seconds)
        print(f"{each.name}: {measured or each.last_words()}", file=sys.stderr, flush=True)
        rate = max(rate, matmul_rate(arguments.device))
        if measured:
            found.append({"part": each.part, "who": each.who, "how": each.how, **measured})
        if arguments.json:
            whole = {"matmul TFLOP/s": rate, "device": device_name(arguments.device), "runs": found}
            Path(arguments.json).write_text(json.dumps(whole, indent=1))
    print(table(found, rate, device_name(arguments.device)))
    return None


class Contender:
    """A process that builds and warms up one contender, says so, and measures when it is told to."""

    def __init__(self, which, arguments):
        self.part, self.who, self.how = which
        self.name = ", ".join(filter(None, which))
        command = [sys.executable, __file__, "--task", json.dumps(which), "--seconds", str(arguments.seconds)]
        command += ["--device", arguments.device, *(["--batch", str(arguments.batch)] if arguments.batch else [])]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads for minutes would fill up
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )
        self.lines = queue.Queue()  # what it says, and None when it says no more
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def line(self, seconds):
        """Its next line; None where it ended, or none came in time."""
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def measured(self, seconds):
        """What it measured; None where it could not, or not in time. The process is over after that."""
        if self.process.poll() is not None:
            return None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        found = self.line(seconds)
        self.process.kill()  # what it started itself may hold its pipes for long
        with contextlib.suppress(TypeError, ValueError):
            return json.loads(found)
        return None

    def last_words(self):
        """The last line of what went wrong."""
        self.errors.seek(0)
        return (self.errors.read().strip() or "no word").splitlines()[-1]


def work(part, who, how, arguments):
    """One contender, from its first step to its last."""
    import torch

    synchronize = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    began = time.perf_counter()
    batch = arguments.batch or BATCHES[part]
    steps, flop = (ours if who == "unnoise" else theirs)(part, how, batch, arguments.device)
    for _ in range(WARM if "compiled" in how else 1):  # others need no minutes, but all of the card's memory
        next(steps)
    synchronize()
    torch.cuda.empty_cache()
    print(f"ready after {time.perf_counter() - began:.0f} s", flush=True)
    sys.stdin.readline()
    for _ in range(WARM):
        next(steps)
    synchronize()
    times = []
    end = time.perf_counter() + arguments.seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(AT_ONCE):
            next(steps)
        synchronize()
        times.append((time.perf_counter() - begin) / AT_ONCE)
    step = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() / 1e9 if arguments.device == "cuda" else 0.0
    rate = batch / step
    print(
        json.dumps({"pictures/s": rate, "TFLOP/s": rate * flop / 1e12, "ms a step": 1e3 * step, "GB": memory}),
        flush=True,
    )


def ours(part, how, batch, device):
    """unnoise's own run, as `unnoise train` makes it, and the operations of a sample."""
    from _training_networks import latents, pictures
    from _training_peers import our_network, our_run

    network = {"name": "ddpm_unet"} if part == "unet" else {"name": "dit", "size": "B", "patch": 2}
    sections = {"process": {"name": "linear"}, "denoiser": {"name": "noise"}}
    machine = {"device": device, "compile": how == "compiled", "cuda_graphs": how == "recorded"}
    steps, run = our_run(pictures() if part == "unet" else latents(), network, batch, machine=machine, **sections)
    trained = our_network(run)
    return steps, operations(
        lambda: type(trained)(trained.shape, trained.out_shape, trained.num_classes, trained.config), trained.shape
    )


def theirs(part, how, batch, device):
    """diffusers' network and the loop of its unconditional example, and the operations of a sample."""
    import diffusers
    import torch
    from _training_networks import DDPM_UNET, latents, pictures, scaled
    from diffusers.training_utils import EMAModel

    labelled = part == "dit"
    make = (lambda: diffusers.UNet2DModel(**DDPM_UNET)) if part == "unet" else lambda: diffusers.DiTTransformer2DModel(
        num_attention_heads=12, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=12, sample_size=32, patch_size=2
    )  # fmt: skip
    network, low = make().to(device).train(), how != "as shipped"
    if low:
        network.to(memory_format=torch.channels_last)
    data = (scaled(pictures()) if part == "unet" else latents()).to(device)
    noising = diffusers.DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, fused=low or None
    )
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    asked = torch.compile(network) if "compiled" in how else network
    context = torch.autocast(device, torch.bfloat16) if low else contextlib.nullcontext()

    def steps():
        while True:
            x = data[torch.randint(0, len(data), (batch,), device=device)]
            x = x.contiguous(memory_format=torch.channels_last) if low else x
            noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=device)
            labels = {"class_labels": torch.randint(0, 1000, (len(x),), device=device)} if labelled else {}
            with context:
                answer = asked(noising.add_noise(x, noise, t), t, return_dict=False, **labels)[0]
                loss = torch.nn.functional.mse_loss(answer.float(), noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.step(network.parameters())
            yield

    more = {"class_labels": torch.zeros(1, dtype=torch.int64, device="meta")} if labelled else {}
    return steps(), operations(make, tuple(data.shape[1:]), **more)


def operations(make, shape, **more):
    """Floating-point operations of a sample in training: three forward passes, counted on tensors without memory."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = make().eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *shape), torch.zeros(1), **more)
    return 3 * counter.get_total_flops()


def matmul_rate(device):
    """TFLOP/s of a product of two large matrices of random numbers in bfloat16; not on the processor, where this is only tried."""
    import torch

    if device == "cpu":
        return float("nan")
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for turn in range(8):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / 10 if turn > 1 else float("inf"))
    return 2 * SIDE**3 / min(times) / 1e12


def has_gpu():
    """Whether there is one."""
    import torch

    return torch.cuda.is_available()


def device_name(device):
    """What the card is called."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "processor"


def table(found, rate, device):
    """Markdown."""
    lines = [f"{device}, a product of matrices in bfloat16: {rate:.0f} TFLOP/s", ""]
    lines += [
        "| | pictures/s | TFLOP/s | of the product's | ms a step | GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        share = "-" if rate != rate else f"{100 * each['TFLOP/s'] / rate:.0f} %"
        numbers = (
            f"{each['pictures/s']:,.0f} | {each['TFLOP/s']:.0f} | {share} | {each['ms a step']:.1f} | {each['GB']:.1f}"
        )
        lines.append(f"| {', '.join(filter(None, (each['part'], each['who'], each['how'])))} | {numbers} |")
    return "\n".join(lines)


def parsed():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BATCHES), help="parts, with commas between")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--hold", action="store_true", help="measure nothing before a line on the standard input")
    parser.add_argument(
        "--patience", type=float, default=300.0, help="seconds that anybody may take to build and compile"
    )
    parser.add_argument(
        "--device", default="cuda", choices=["cuda", "cpu"], help="cpu to try this where there is no GPU"
    )
    parser.add_argument("--batch", type=int, default=0, help="pictures a step, instead of those above")
    parser.add_argument("--json", help="a file for the numbers")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
