"""FID after the same minutes of training, on Fashion-MNIST and CIFAR-10, by unnoise's own features of the real data.

unnoise trains its shipped recipe. lucidrains' Trainer trains the model of its README, from a folder of PNG as it wants them;
its mixed precision is asked for as there, but in bf16, for want of fp16, and only where the hardware has that. diffusers trains as
examples/unconditional_image_generation/train_unconditional.py does by its defaults, from memory. Pictures of 28 x 28 get a
border of two for the peers, whose networks halve sizes more often than 28 can be halved; it is cut off their samples. Every
sample costs the same number of network evaluations: DDIM of their own for the peers, unnoise as its recipe says, with labels as
often as the real data has them and without guidance, which would need a second evaluation. Where the hardware has bf16, all
networks are asked in it: it moves a picture by a grey level, and the peers' would take twice as long.

    python benchmarks/training.py --only quality --data fashion-mnist=fashion_mnist/train.parquet \\
        --data 'cifar10=cifar10/train-*.parquet' [--minutes 10] [--samples 5000] [--calls 20] [--who lucidrains]

Each stage leaves its files under --out, and a stage whose files are there is not made again: the whole can be had in pieces.
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import torch
from _training_networks import diffusers_loop
from _training_peers import BF16, GIVEN, SHIPPED, diffusers, given, lucidrains, our_network
from torch.nn import functional

BLOCK = 50  # samples between two files
SIDE = 32


def compare(arguments, worker, say):
    """Runs the stages that are asked for, each in a process of its own, and gives the rows of all that were judged."""
    rows = []
    for pair in arguments.data:
        recipe, equals, path = pair.partition("=")
        if not equals:
            raise SystemExit(
                f"--data: expected RECIPE=PATH, such as fashion-mnist=fashion_mnist/train.parquet, got {pair!r}"
            )
        for name in (name for name in TRAIN if arguments.who in name):
            folder = arguments.out / recipe / name.split()[0]
            folder.mkdir(parents=True, exist_ok=True)
            spec = {"name": name, "recipe": recipe, "data": path, "folder": str(folder), "calls": arguments.calls}
            spec |= {
                "minutes": arguments.minutes,
                "samples": arguments.samples,
                "set": arguments.set,
                "threads": arguments.threads,
            }
            for stage in arguments.stages.split(","):
                say(f"quality: {recipe}, {name}: {stage}")
                found = worker(arguments, part="quality", stage=stage, **spec)
                if "missing" in found:
                    say(f"left out: {found['missing']}")
                    break
            judged = folder / f"judged-{arguments.samples}-{arguments.calls}.json"
            if judged.exists():
                rows.append(json.loads(judged.read_text()))
    return rows


# --- Train: model.pt or a run, and train.json with seconds and images seen


def real_data(spec):
    from unnoise.data.open import source_of

    return source_of(spec["data"]).load()


def framed(x):
    """uint8 pictures with a border of background up to 32 x 32."""
    border = (SIDE - x.shape[-1]) // 2
    return functional.pad(x, (border,) * 4, value=0) if border else x


def train(spec):
    """Trains for the minutes, once."""
    done = Path(spec["folder"]) / "train.json"
    if done.exists():
        return json.loads(done.read_text())
    begin = time.process_time()
    found = {**TRAIN[spec["name"]](spec), "processor_seconds": time.process_time() - begin}
    done.write_text(json.dumps(found))
    return found


def train_unnoise(spec):
    """The shipped recipe. Its number of steps, by which the learning rate falls, is what a short trial says can be made; the trial
    is part of the minutes.
    """
    from unnoise.recipes.recipe import load_recipe, read_values, with_data
    from unnoise.recipes.run import Run
    from unnoise.training.loop import Stepped

    values, folder = with_data(read_values(spec["recipe"]), spec["data"]), Path(spec["folder"])
    limit = 60 * spec["minutes"]
    for begun in ("trial", "run"):  # broken off by whoever ended the benchmark: minutes that were not counted
        shutil.rmtree(folder / begun, ignore_errors=True)
    quiet = ["training.sample_every=0", "training.validation_size=16"]
    quiet += [f"training.{name}={10**9}" for name in ("checkpoint_every", "validate_every")]

    def run(place, steps, seconds):
        made = Run(load_recipe(values, [*quiet, f"training.steps={steps}", *spec["set"]]), place)
        begin, ends = time.perf_counter(), []
        for event in made.events(lambda: time.perf_counter() - begin >= seconds):
            if isinstance(event, Stepped):
                ends.append(time.perf_counter() - begin)
        return made, ends, time.perf_counter() - begin

    _, ends, spent = run(folder / "trial", 10**6, min(20.0, limit / 10))
    rate = len(ends) / ends[-1] if len(ends) < 8 else (len(ends) - 4) / (ends[-1] - ends[3])
    made, _, more = run(folder / "run", max(1, int(rate * (limit - spent))), limit - spent)
    batch = made.recipe.training.batch_size
    weights = sum(p.numel() for p in our_network(made).parameters())
    return {"seconds": spent + more, "updates": made.state.step, "images": made.state.step * batch, "weights": weights}


def lucidrains_diffusion(channels, calls):
    """The model of its README, at 32 x 32."""
    library = lucidrains()
    network = library.Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=channels, flash_attn=True)
    return library.GaussianDiffusion(network, image_size=SIDE, timesteps=1000, sampling_timesteps=calls)


def train_lucidrains(spec):
    """Its Trainer, with the settings of its README."""
    folder, data = Path(spec["folder"]), real_data(spec)
    pictures = folder / "pictures"
    write_pictures(framed(data.x), pictures)
    torch.manual_seed(0)
    diffusion = lucidrains_diffusion(data.x.shape[1], spec["calls"])
    trainer = lucidrains().Trainer(
        diffusion, str(pictures), train_batch_size=32, train_lr=8e-5, train_num_steps=10**9, gradient_accumulate_every=2,
        ema_decay=0.995, amp=BF16, mixed_precision_type="bf16", calculate_fid=False, save_and_sample_every=10**9,
        results_folder=str(folder / "results"),
    )  # fmt: skip
    update, begin = trainer.ema.update, time.perf_counter()

    def update_and_look():
        update()
        if time.perf_counter() - begin >= 60 * spec["minutes"]:
            trainer.train_num_steps = trainer.step

    trainer.ema.update = update_and_look
    trainer.train()
    spent = time.perf_counter() - begin
    torch.save(trainer.ema.ema_model.state_dict(), folder / "model.pt")
    weights = sum(p.numel() for p in diffusion.parameters())
    return {"seconds": spent, "updates": trainer.step, "images": 64 * trainer.step, "weights": weights}


def write_pictures(x, folder):
    """A PNG of each, once."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(x):
        path = folder / f"{number:06d}.png"
        if not path.exists():
            array = each[0].numpy() if len(each) == 1 else each.permute(1, 2, 0).numpy()
            Image.fromarray(array).save(path, compress_level=1)


def diffusers_network(channels):
    """The one that its script builds if none is named, at 32 x 32."""
    return diffusers().UNet2DModel(
        sample_size=SIDE, in_channels=channels, out_channels=channels, layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    )  # fmt: skip


def train_diffusers(spec):
    """Its script's loop: batches of 16, AdamW at 1e-4 rising over 500 steps and then falling by a cosine over 100 epochs, EMA."""
    from diffusers.optimization import get_cosine_schedule_with_warmup

    data = real_data(spec)
    x = framed(data.x).float() / 127.5 - 1
    torch.manual_seed(0)
    network = diffusers_network(x.shape[1])
    kept = {}

    def schedule(optimizer, ema):
        law = get_cosine_schedule_with_warmup(optimizer, 500, 100 * -(-len(x) // 16))
        kept.update(ema=ema)
        return law.step

    updates, begin = 0, time.perf_counter()
    for _ in diffusers_loop(network, x, 16, SHIPPED, schedule=schedule):
        updates += 1
        if time.perf_counter() - begin >= 60 * spec["minutes"]:
            break
    spent = time.perf_counter() - begin
    kept["ema"].copy_to(network.parameters())
    torch.save(network.state_dict(), Path(spec["folder"]) / "model.pt")
    weights = sum(p.numel() for p in network.parameters())
    return {"seconds": spent, "updates": updates, "images": 16 * updates, "weights": weights}


TRAIN = {
    "unnoise": train_unnoise,
    "lucidrains Trainer": train_lucidrains,
    "diffusers train_unconditional": train_diffusers,
}
"""Who is compared, and how it is trained."""


# --- Sample: blocks of uint8 pictures in samples/CALLS/


def sample(spec):
    """Makes what is missing of the samples."""
    folder = Path(spec["folder"]) / "samples" / str(spec["calls"])
    folder.mkdir(parents=True, exist_ok=True)
    wanted = range(0, spec["samples"], BLOCK)
    missing = [first for first in wanted if not (folder / f"{first:06d}.pt").exists()]
    begin = time.perf_counter()
    if missing:
        make, context = SAMPLE[spec["name"]](spec), contextlib.nullcontext
        if spec["name"] != "unnoise":  # which knows by itself
            context = given(GIVEN, None)[1]
        for first in missing:
            torch.manual_seed(first)
            with torch.inference_mode(), context():
                block = make(first, BLOCK)
            part = folder / f".{first:06d}.partial"
            torch.save(block.clone(), part)
            os.replace(part, folder / f"{first:06d}.pt")
    return {"seconds": time.perf_counter() - begin, "samples": BLOCK * len(missing)}


def to_pixels(x, side):
    """Pictures in [-1, 1] as uint8, without their border."""
    border = (x.shape[-1] - side) // 2
    inner = x[..., border : x.shape[-2] - border, border : x.shape[-1] - border] if border else x
    return ((inner.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def sample_unnoise(spec):
    """The run's averaged model with its recipe's sampler and labels."""
    import unnoise
    from unnoise.recipes.judging.subject import ModelSubject, Request
    from unnoise.samplers.base import samplers

    model = unnoise.load(Path(spec["folder"]) / "run").on("cpu")
    calls_a_step = samplers.build(samplers.describe(model.sampling.sampler)).evaluations
    asked = Request(steps=spec["calls"] // calls_a_step, guidance=1.0)
    return ModelSubject(model, asked, real_data(spec)).samples


def sample_lucidrains(spec):
    data = real_data(spec)
    diffusion = lucidrains_diffusion(data.x.shape[1], spec["calls"])
    diffusion.load_state_dict(torch.load(Path(spec["folder"]) / "model.pt", weights_only=True))
    diffusion.eval()
    return lambda first, count: to_pixels(2 * diffusion.sample(batch_size=count) - 1, data.x.shape[-1])


def sample_diffusers(spec):
    library, data = diffusers(), real_data(spec)
    network = diffusers_network(data.x.shape[1])
    network.load_state_dict(torch.load(Path(spec["folder"]) / "model.pt", weights_only=True))
    network.eval()

    def make(first, count):
        scheduler = library.DDIMScheduler.from_config(library.DDPMScheduler(num_train_timesteps=1000).config)
        scheduler.set_timesteps(spec["calls"])
        x = torch.randn(count, data.x.shape[1], SIDE, SIDE)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t, return_dict=False)[0], t, x, return_dict=False)[0]
        return to_pixels(x, data.x.shape[-1])

    return make


SAMPLE = {
    "unnoise": sample_unnoise,
    "lucidrains Trainer": sample_lucidrains,
    "diffusers train_unconditional": sample_diffusers,
}


# --- Judge: judged-SAMPLES-CALLS.json


def judge(spec):
    """FID of the samples to the training data, and KID, which few samples do not bias."""
    from unnoise.recipes.judging.run import evaluate

    folder = Path(spec["folder"])
    done = folder / f"judged-{spec['samples']}-{spec['calls']}.json"
    if done.exists():
        return json.loads(done.read_text())
    blocks = [folder / "samples" / str(spec["calls"]) / f"{first:06d}.pt" for first in range(0, spec["samples"], BLOCK)]
    x = torch.cat([torch.load(path, weights_only=True) for path in blocks])[: spec["samples"]]
    import numpy as np

    np.savez(folder / "samples.npz", x=x.numpy())
    judged = evaluate(
        folder / "samples.npz",
        data=spec["data"],
        metrics=("fid", "kid"),
        features="own",
        memorisation=False,
        out=folder / f"judged-{spec['samples']}",
    )
    fid, kid = (judged.result.estimates[name] for name in ("fid", "kid"))
    trained = json.loads((folder / "train.json").read_text())
    row = {
        "name": spec["name"],
        "data": spec["recipe"],
        "fid": float(fid.value),
        "low": float(fid.low),
        "high": float(fid.high),
        "kid": [float(kid.value), float(kid.low), float(kid.high)],
    }
    row |= {
        **trained,
        "samples": spec["samples"],
        "calls": spec["calls"],
        "features": judged.result.values["features"]["hash"],
    }
    done.write_text(json.dumps(row, indent=1))
    return row


STAGES = {"train": train, "sample": sample, "judge": judge}
