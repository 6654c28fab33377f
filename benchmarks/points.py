"""A training step on 2-D points: unnoise beside a hand-written plain PyTorch loop that does the same work.

The network is the seeds' MLP (66 -> 256 -> 256 -> 2), batch 64, noise prediction on the linear schedule, Adam 1e-4 and a
moving average of the weights. The two run in turns within one process, so that whatever else the machine does hits both;
the ratio is the median over the turns. The last rows time the shipped `spiral` recipe until its samples are good.

    python benchmarks/points.py [--turns 20] [--steps 200] [--json points.json]
"""

import argparse
import json
import os
import statistics
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import datasets
from unnoise.denoisers.noise import NoiseDenoiser
from unnoise.evaluation.distances import energy_distance
from unnoise.nn.seed_mlp import SeedMLP
from unnoise.objectives.mse import MSEObjective
from unnoise.process.linear import LinearSchedule
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped, Trainee, train
from unnoise.training.settings import TrainingSettings
from unnoise.training.state import TrainState

BATCH = 64


def plain_loop(data):
    """What a person writes: one step a call."""
    network = SeedMLP((2,))
    ema = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    root, rest = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    while True:
        x_0 = data[torch.randint(0, len(data), (BATCH,))]
        t = torch.randint(0, 1000, (BATCH,))
        eps = torch.randn_like(x_0)
        x_t = root[t, None] * x_0 + rest[t, None] * eps
        loss = ((network(x_t, t.float()) - eps) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, p in zip(ema, network.parameters(), strict=True):
                average.lerp_(p, 0.001)
        yield


def our_loop(dataset):
    """The same work by unnoise: one step a call."""
    network = SeedMLP((2,))
    settings = TrainingSettings(
        steps=10**9, batch_size=BATCH, lr=1e-4, warmup=0, decay="constant", betas=(0.9, 0.999), clip=0.0,
        validate_every=10**9, sample_every=0, checkpoint_every=10**9, validation_size=16,
    )  # fmt: skip
    trainee = Trainee(
        NoiseDenoiser(network, LinearSchedule()),
        MSEObjective(),
        IdentityCodec(),
        dataset,
        dataset.take(torch.arange(0)),
        0,
    )
    for event in train(trainee, TrainState(network, settings)):
        if isinstance(event, Stepped):
            yield


def seconds(loop, steps):
    start = time.perf_counter()
    for _ in range(steps):
        next(loop)
    return (time.perf_counter() - start) / steps


def until_good():
    """The shipped recipe: seconds of training, and the energy distance of 2,000 samples to the data after them."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(load_recipe("spiral", ["training.sample_every=0"]), f"{folder}/run")
        start = time.perf_counter()
        for _ in run.events():
            pass
        spent = time.perf_counter() - start
        distance = energy_distance(run.model().sample(2000, steps=20).tensor, run.train_data.x)
    return spent, float(distance)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    dataset = datasets.build("spiral").load()
    plain, ours = plain_loop(dataset.x), our_loop(dataset)
    for loop in (plain, ours):
        seconds(loop, 300)
    pairs = [(seconds(plain, arguments.steps), seconds(ours, arguments.steps)) for _ in range(arguments.turns)]
    plain_us, ours_us = (1e6 * statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    spent, distance = until_good()
    print(f"threads                      {torch.get_num_threads()}")
    print(f"plain PyTorch loop           {plain_us:8.0f} us a step")
    print(f"unnoise                      {ours_us:8.0f} us a step")
    print(f"ratio (at most 1.1)          {ratio:8.2f}")
    print(f"spiral recipe, training      {spent:8.1f} s        (at most 10)")
    print(f"its energy distance          {distance:8.4f}          (at most 0.003)")
    if arguments.json:
        result = {
            "plain_us": plain_us,
            "ours_us": ours_us,
            "ratio": ratio,
            "spiral_s": spent,
            "spiral_energy": distance,
        }
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
