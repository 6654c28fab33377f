"""Who trains the seeds' net (66 -> 256 -> 256 -> 2) on the spiral, each in its own loop, and how long until samples are good.

All ask the network at a noise level between 0 and 1,000. The plain loop is what a person writes; the others are the loops that
their libraries ship or show in their README.
"""

import math

import torch
from _training_networks import azula_loop, diffusers_loop
from _training_peers import SHIPPED, Contender, Work, azula, diffusers, our_run, smalldiffusion
from torch import nn
from torch.utils.data import DataLoader

from unnoise.data.base import datasets
from unnoise.evaluation.distances import energy_distance
from unnoise.nn.seed_mlp import SeedMLP
from unnoise.recipes.recipe import load_recipe, read_values
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped

BATCH, SAMPLES, GOOD = 64, 2000, 0.003
LOWEST, HIGHEST = math.log(1e-3), math.log(1e3)  # of sigma / alpha


def spiral():
    """The 300 points, of zero mean and unit variance, and the two numbers that bring them back."""
    x = datasets.build("spiral").load().x
    return (x - x.mean(0)) / x.std(0), x


class ByLogSigma(nn.Module):
    """The seeds' net for who tells it a logarithm of the noise."""

    def __init__(self):
        super().__init__()
        self.network = SeedMLP((2,))

    def forward(self, x, log_sigma):
        return self.network(x, 1000 * (log_sigma - LOWEST) / (HIGHEST - LOWEST))


def loaded(data):
    """A DataLoader; the points stand in it 64 times, so that it does not begin anew every fifth batch."""
    return DataLoader(data.repeat(64, 1), batch_size=BATCH, shuffle=True)


def forever(data):
    while True:
        yield from loaded(data)


# --- The loops: each gives steps and a way to sample what was learned


def plain(data):
    """What a person writes."""
    network = SeedMLP((2,))
    average = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    root, rest = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def steps():
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
                for mean, p in zip(average, network.parameters(), strict=True):
                    mean.lerp_(p, 0.001)
            yield

    @torch.no_grad()
    def sample(n):
        x, levels = torch.randn(n, 2), list(range(999, -1, -10))
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            eps = network(x, torch.full((n,), float(level)))
            x_0 = (x - rest[level] * eps) / root[level]
            x = x_0 if following is None else root[following] * x_0 + rest[following] * eps
        return x

    return steps(), sample


def by_diffusers(data):
    """Its DDPMScheduler in the loop of its example; sampled by its DDIMScheduler."""
    inner = SeedMLP((2,))

    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x, t, return_dict=False):
            return (self.inner(x, t.float()),)

    @torch.no_grad()
    def sample(n):
        scheduler = diffusers().DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        scheduler.set_timesteps(100)
        x = torch.randn(n, 2)
        for t in scheduler.timesteps:
            x = scheduler.step(inner(x, torch.full((n,), float(t))), t, x, return_dict=False)[0]
        return x

    return diffusers_loop(Answer(), data, BATCH, SHIPPED, lr=1e-3), sample


def by_azula(data):
    """The loop of its README with a DataLoader; sampled by its DDIM."""
    batches = forever(data)
    denoiser, steps = azula_loop(ByLogSigma(), lambda: next(batches), SHIPPED)

    @torch.no_grad()
    def sample(n):
        sampler = azula("sample").DDIMSampler(denoiser, steps=100, silent=True)
        return sampler(sampler.init((n, 2)))

    return steps, sample


def by_smalldiffusion(data):
    """Its training_loop and its sampler, with the settings of its README's example of points."""
    library = smalldiffusion()

    class Network(nn.Module, library.ModelMixin):
        input_dims = (2,)

        def __init__(self):
            super().__init__()
            self.inner = ByLogSigma()

        def forward(self, x, sigma, cond=None):
            return self.inner(x, sigma.log().reshape(-1).expand(len(x)))

    network = Network()
    schedule = library.ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10)

    def sample(n):
        *_, end = library.samples(network, schedule.sample_sigmas(100), gam=2, batchsize=n)
        return end

    return (None for _ in library.training_loop(loaded(data), network, schedule, epochs=10**6)), sample


LOOPS = {
    "plain PyTorch loop": plain,
    "diffusers DDPMScheduler loop": by_diffusers,
    "smalldiffusion training_loop": by_smalldiffusion,
    "azula README loop": by_azula,
}


def work_of(loop):
    def make(variant, batch):
        return Work(None, (), loop(spiral()[0])[0])

    return make


def ours(variant, batch):
    """The same network in unnoise's run."""
    settings = {"lr": 1e-3, "warmup": 0, "decay": "constant", "clip": 0.0}
    recipe = {"process": {"name": "linear"}, "denoiser": {"name": "noise"}, "training": settings}
    return Work(None, (), our_run("spiral", {"name": "seed_mlp"}, batch, **recipe)[0])


POINTS = {name: Contender(name, (SHIPPED,), work_of(loop)) for name, loop in LOOPS.items()}
POINTS["unnoise"] = Contender("unnoise", (SHIPPED,), ours)
"""Who makes steps."""
UNTIL = ("unnoise, recipe spiral", *LOOPS)
"""Who trains until the samples are good."""


def until_good(name, limit, clock):
    """Seconds of training, without those of looking, until the energy distance of 2,000 samples to the data is small enough.

    Args:
        name: Of UNTIL.
        limit: Seconds of training at most.
        clock: Tells seconds.

    Returns:
        Seconds, or None, with the smallest distance that was seen and when.
    """
    torch.manual_seed(0)
    if name in LOOPS:
        scaled, x = spiral()
        steps, sample = LOOPS[name](scaled)
        look, every = (lambda: energy_distance(sample(SAMPLES) * x.std(0) + x.mean(0), x)), 500
    else:
        steps, look = our_recipe()
        every = 50
    spent, best, count, seen = 0.0, math.inf, 0, []
    while spent < limit:
        begin = clock()
        try:
            for _ in range(every):
                next(steps)
        except StopIteration:
            break
        spent += clock() - begin
        count += every
        distance = look()
        seen.append((spent, distance))
        best = min(best, distance)
        if distance <= GOOD:
            return {"seconds": spent, "updates": count, "distance": distance, "seen": seen}
    return {"seconds": None, "updates": count, "distance": best, "seen": seen}


def our_recipe():
    """The shipped recipe as it is, and the distance of its averaged model's samples by the recipe's own sampler."""
    import tempfile

    folder = tempfile.TemporaryDirectory()
    values = read_values("spiral")
    run = Run(load_recipe(values, ["training.sample_every=0"]), f"{folder.name}/run")

    def steps():
        for event in run.events():
            if isinstance(event, Stepped):
                yield
        folder.cleanup()

    return steps(), lambda: energy_distance(run.model().sample(SAMPLES).tensor, run.train_data.x)
