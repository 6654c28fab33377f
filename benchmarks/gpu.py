"""Training on one GPU beside diffusers: pictures a second, and the share of what the card's matrix units reach.

A step is the whole of it: the batch, noise, forward and backward pass, clipping, optimizer, moving average. Every contender has a
process of its own. All of them build and compile at once, since that takes minutes of processors and hardly any of the card;
then they are measured one after another. Arithmetic is counted by torch's FlopCounterMode, three forward passes a step, and held
against a product of two matrices of 8,192 x 8,192 in bfloat16 that is timed in between.

    python benchmarks/gpu.py [--only unet,dit] [--seconds 3] [--hold] [--json gpu.json]

    unet     35.7 M weights on 32 x 32 x 3, the DDPM CIFAR-10 configuration, 128 pictures a step
    dit      DiT-B/2 on 32 x 32 x 4 latents, 256 a step

diffusers is measured as shipped, in float32; given bf16 by autocast, a fused optimizer and channels-last order; and that compiled.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHES = {"unet": 128, "dit": 256}
CONTENDERS = [
    (part, *who)
    for part in BATCHES
    for who in (
        ("unnoise", ""), ("unnoise", "compiled"), ("diffusers", "as shipped"), ("diffusers", "bf16"),
        ("diffusers", "bf16, compiled"),
    )
]  # fmt: skip
WARM = 12  # steps before anything is timed
SIDE = 8192


def main():
    """Starts everybody, measures one after another, prints a table."""
    arguments = parsed()
    if arguments.task:
        return work(*json.loads(arguments.task), arguments.seconds)
    if not has_gpu():
        return print("there is no GPU here: nothing is measured")
    wanted = [each for each in CONTENDERS if each[0] in arguments.only.split(",")]
    processes = [(each, started(each, arguments.seconds)) for each in wanted]
    for each, process in processes:
        answer = process.stdout.readline().strip()
        print(f"{', '.join(filter(None, each))}: {answer or 'ended'}", file=sys.stderr, flush=True)
    if arguments.hold:
        input()
    rate, found = matmul_rate(), []
    for (part, who, how), process in processes:
        out, _ = process.communicate("go\n")
        process.errors.seek(0)
        errors = process.errors.read()
        try:
            found.append({"part": part, "who": who, "how": how, **json.loads(out.strip().splitlines()[-1])})
            print(found[-1], file=sys.stderr, flush=True)
        except (IndexError, ValueError):
            print(f"{part}, {who} {how}: {(errors.strip() or 'no word').splitlines()[-1]}", file=sys.stderr)
    rate = max(rate, matmul_rate())
    print(table(found, rate))
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"matmul TFLOP/s": rate, "device": device_name(), "runs": found}, indent=1)
        )
    return None


def started(contender, seconds):
    """A process that builds and warms up one contender, says so, and measures when it is told to."""
    command = [sys.executable, __file__, "--task", json.dumps(contender), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads for minutes would fill up
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    process.errors = errors
    return process


def work(part, who, how, seconds):
    """One contender, from its first step to its last."""
    import torch

    began = time.perf_counter()
    steps, flop = (ours if who == "unnoise" else theirs)(part, how)
    for _ in range(WARM if "compiled" in how else 0):  # others need no minutes, but all of the card's memory
        next(steps)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    print(f"ready after {time.perf_counter() - began:.0f} s", flush=True)
    sys.stdin.readline()
    for _ in range(WARM):
        next(steps)
    torch.cuda.synchronize()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(10):
            next(steps)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / 10)
    step = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() / 1e9
    rate = BATCHES[part] / step
    found = {"pictures/s": rate, "TFLOP/s": rate * flop / 1e12, "ms a step": 1e3 * step, "GB": memory}
    print(json.dumps(found), flush=True)
    os._exit(0)  # a run that goes on for ever is not ended otherwise


def ours(part, how):
    """unnoise's own run, as `unnoise train` makes it, and the operations of a sample."""
    from _training_networks import latents, pictures
    from _training_peers import our_network, our_run

    network = {"name": "ddpm_unet"} if part == "unet" else {"name": "dit", "size": "B", "patch": 2}
    sections = {"process": {"name": "linear"}, "denoiser": {"name": "noise"}}
    machine = {"device": "cuda", "compile": how == "compiled"}
    steps, run = our_run(
        pictures() if part == "unet" else latents(), network, BATCHES[part], machine=machine, **sections
    )
    trained = our_network(run)
    return steps, operations(
        lambda: type(trained)(trained.shape, trained.out_shape, trained.num_classes, trained.config), trained.shape
    )


def theirs(part, how):
    """diffusers' network and the loop of its unconditional example, and the operations of a sample."""
    import diffusers
    import torch
    from _training_networks import DDPM_UNET, latents, pictures, scaled
    from diffusers.training_utils import EMAModel

    labelled = part == "dit"
    make = (lambda: diffusers.UNet2DModel(**DDPM_UNET)) if part == "unet" else lambda: diffusers.DiTTransformer2DModel(
        num_attention_heads=12, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=12, sample_size=32, patch_size=2
    )  # fmt: skip
    network, low = make().cuda().train(), how != "as shipped"
    if low:
        network.to(memory_format=torch.channels_last)
    data = (scaled(pictures()) if part == "unet" else latents()).cuda()
    noising = diffusers.DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, fused=low or None
    )
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    asked = torch.compile(network) if "compiled" in how else network
    context = torch.autocast("cuda", torch.bfloat16) if low else contextlib.nullcontext()

    def steps():
        while True:
            x = data[torch.randint(0, len(data), (BATCHES[part],), device="cuda")]
            x = x.contiguous(memory_format=torch.channels_last) if low else x
            noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device="cuda")
            labels = {"class_labels": torch.randint(0, 1000, (len(x),), device="cuda")} if labelled else {}
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


def matmul_rate():
    """TFLOP/s of a product of two large matrices of random numbers in bfloat16."""
    import torch

    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
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


def device_name():
    """What the card is called."""
    import torch

    return torch.cuda.get_device_name()


def table(found, rate):
    """Markdown."""
    lines = [f"{device_name()}, a product of matrices in bfloat16: {rate:.0f} TFLOP/s", ""]
    lines += [
        "| | pictures/s | TFLOP/s | of the product's | ms a step | GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in found:
        share = f"{100 * each['TFLOP/s'] / rate:.0f} %"
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
    parser.add_argument(
        "--hold", action="store_true", help="when all is compiled, wait for a line on the standard input"
    )
    parser.add_argument("--json", help="a file for the numbers")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
