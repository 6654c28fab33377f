"""One exact problem for both sides, and the other libraries made to run in float64 with the noise that they are given."""

import importlib
import importlib.util
import itertools
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.randomness import NoiseSource
from unnoise.samplers.base import trajectory
from unnoise.samplers.multistep import Past

MEANS = torch.tensor([[1.0, 0.3], [-0.8, 0.6], [0.1, -1.1]], dtype=torch.float64)
STDS = torch.tensor([0.5, 0.7, 0.4], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


class Kept:
    """The noise of a run, kept in the order in which it was drawn."""

    def __init__(self):
        self.source, self.drawn = NoiseSource(8, range(5)), []

    def __call__(self, like, t, s, draw=0):
        self.drawn.append(self.source(like, t, s, draw))
        return self.drawn[-1]


class Problem:
    """A mixture of three normal distributions in the plane, its exact denoiser, and our side of a run."""

    exploding = VarianceExplodingSchedule(sigma_max=200.0)

    def clean(self, x, alpha, sigma):
        """E[x_0 | x], from the definition of a mixture: nothing of the package is used."""
        variance = alpha**2 * STDS**2 + sigma**2
        offset = x[:, None] - alpha * MEANS
        share = (WEIGHTS.log() - variance.log() - (offset**2).sum(-1) / (2 * variance)).softmax(1)
        return (share[..., None] * (MEANS + (alpha * STDS**2 / variance)[:, None] * offset)).sum(1)

    def noise_in(self, x, alpha, sigma):
        return (x - alpha * self.clean(x, alpha, sigma)) / sigma

    def oracle(self, schedule):
        return GaussianMixtureOracle(MEANS, STDS, WEIGHTS, schedule)

    def start(self, scale=1.0):
        return scale * torch.from_numpy(np.random.default_rng(3).standard_normal((5, 2)))

    def kept(self):
        return Kept()

    def times(self, schedule, ratios):
        """The times at which sigma / alpha has the values that another library's grid has."""
        ratios = torch.as_tensor(ratios, dtype=torch.float64)
        return torch.where(ratios > 0, schedule.time_of(-2 * ratios.clamp(min=1e-300).log()), 0.0)

    def steps(self, sampler, schedule, x, grid, noise=None):
        """Every step of ours."""
        return list(trajectory(sampler, self.oracle(schedule), x, grid, noise=noise))

    def ours(self, sampler, schedule, x, grid, noise=None):
        """The end of our run."""
        return self.steps(sampler, schedule, x, grid, noise)[-1].x

    def theirs(self, scheduler, x, scales, answer=None, **options):
        """The run of a scheduler of diffusers.

        Args:
            scheduler: Its timesteps say how often it asks.
            x: Where it starts.
            scales: (call, timestep) to the alpha and sigma at which the network is asked.
            answer: (x, alpha, sigma) to what the network says; the noise if left out.
            options: Of its `step`.

        Returns:
            x at every call and at the end.
        """
        xs = [x]
        ask = getattr(scheduler, "scale_model_input", None)
        for call, timestep in enumerate(scheduler.timesteps):
            if ask:
                ask(x, timestep)  # for networks that want unit variance; without it, some warn
            said = (answer or self.noise_in)(x, *scales(call, timestep))
            x = scheduler.step(said, timestep, x, return_dict=False, **options)[0]
            xs.append(x)
        return xs

    def single_steps(self, sampler, schedule, grid, xs, slopes, keep):
        """Our steps from every x of another library's run, each with what that run remembers there, from `keep` steps on."""
        oracle, found = self.oracle(schedule), []
        for i in range(keep, len(slopes)):
            past = Past(tuple(grid[i - keep : i].flip(0).tolist()), tuple(slopes[i - keep : i][::-1]))
            found.append(sampler.step(oracle, xs[i], grid[i], grid[i + 1], past, noise=NoiseSource(8, range(5))).x)
        return found


class Parabola(Denoiser):
    """An estimate that is the square of ln(alpha / sigma), whatever x is: rules of third order are exact for it."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def at(self, t):
        return float(self.schedule.log_snr(t) / 2) ** 2

    def forward(self, x_t, t, cond=None):
        return torch.full_like(x_t, self.at(t))

    def bend(self, t, s, speed):
        """The part of a step that the second difference makes: alpha_s times the integral of p e^(p (u - h)) u^2."""
        h = float(self.schedule.log_snr(s) - self.schedule.log_snr(t)) / 2
        p = (1 + speed) * h
        return float(self.schedule.alpha(s)) * h**2 * (1 - 2 / p - 2 * math.expm1(-p) / p**2)

    def step(self, x, t, s, speed):
        """Where a step from t to s leads, noise aside: the integral in closed form. Speed is 0 for the ODE, 1 for the SDE."""
        a, b = (float(self.schedule.log_snr(time)) / 2 for time in (t, s))
        alpha, sigma, rate = float(self.schedule.alpha(s)), float(self.schedule.sigma(s)), 1 + speed
        kept = sigma / self.schedule.sigma(t) * math.exp(-speed * (b - a))

        def primitive(u):
            return math.exp(rate * (u - b)) * (u**2 - 2 * u / rate + 2 / rate**2)

        return kept * x + alpha * (primitive(b) - primitive(a))

    def ours(self, sampler, xs, grid, i):
        """One step of ours from the x of another library's run."""
        past = Past(
            tuple(grid[i - 2 : i].flip(0).tolist()), tuple(torch.full_like(xs[i], self.at(grid[i - j])) for j in (1, 2))
        )
        return sampler.step(self, xs[i], grid[i], grid[i + 1], past, noise=lambda like, *_: torch.zeros_like(like)).x


@pytest.fixture(scope="session")
def problem():
    return Problem()


@pytest.fixture(scope="session")
def parabola():
    return Parabola


class InFloat64:
    """torch or numpy, but float32 is float64: what another library computes in float32 is then good to the last digits."""

    def __init__(self, module):
        self._module = module
        self.float32 = module.float64

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def scheduler(float64, monkeypatch):
    """Makes a scheduler of diffusers for the DDPM paper's levels: by name, steps, the noise it is to draw, and its options."""
    library = importlib.import_module("diffusers")

    def make(name, steps, drawn=(), **options):
        kind = getattr(library, name)
        module = sys.modules[kind.__module__]
        monkeypatch.setattr(module, "torch", InFloat64(torch))
        monkeypatch.setattr(module, "np", InFloat64(np), raising=False)
        draws = itertools.chain(drawn, itertools.repeat(torch.full((5, 2), 1e3)))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(draws), raising=False)
        if "Flow" not in name and "EDM" not in name:
            options = {"beta_start": 1e-4, "beta_end": 0.02, **options}
        made = kind(**options)
        made.set_timesteps(steps)
        return made

    return make


@pytest.fixture(scope="session")
def k_diffusion():
    """k_diffusion/sampling.py alone: the package as a whole imports torchvision, CLIP, wandb and more."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1 ('make setup' does)")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(found.submodule_search_locations)
    package.utils = utils
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    # For its likelihood and its Brownian noise, of which neither is used here.
    elsewhere = {name: types.ModuleType(name) for name in ("torchdiffeq", "torchsde")}
    elsewhere["torchdiffeq"].odeint = None
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {"k_diffusion": package, "k_diffusion.utils": utils, **elsewhere}.items():
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("k_diffusion.sampling", Path(package.__path__[0], "sampling.py"))
        sampling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sampling)
    return sampling
