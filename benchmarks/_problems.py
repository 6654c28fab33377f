"""Problems whose answer is known: Gaussian mixtures under three noise schedules, and where the exact ODE leads.

Every method gets the same starts z and the same denoiser. Peers have noise scales of their own, so the problem is stated in
the scale that all of them can be brought to: y = x / alpha and k = sigma / alpha, where dy / dk is the mean of the noise.
"""

import hashlib
import math
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import DOP853

from unnoise.denoisers.base import Denoiser
from unnoise.denoisers.oracle import GaussianMixtureOracle
from unnoise.process.base import scales
from unnoise.process.cosine import CosineSchedule
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule

CACHE = Path(__file__).resolve().parent.parent / "build" / "benchmarks"
SCHEDULES = {"vp-linear": LinearSchedule(), "cosine": CosineSchedule(), "edm": VarianceExplodingSchedule()}
TOLERANCE = 1e-9


class Mixture:
    """Round normal distributions; the posterior means by two matrix products, in float64."""

    def __init__(self, name, dim, components, low, high):
        self.name, self.dim = name, dim
        rng = np.random.default_rng(20240 + dim)
        self.means = torch.from_numpy(rng.normal(0, 0.5, (components, dim)))
        self.stds = torch.from_numpy(rng.uniform(low, high, components))
        self.weights = torch.from_numpy(rng.dirichlet(np.ones(components)))

    @property
    def sigma_data(self):
        """The standard deviation of the data: the root of the mean variance over the dimensions."""
        mean = self.weights @ self.means
        second = self.weights @ (self.stds**2 + (self.means**2).mean(1))
        return float((second - (mean**2).mean()).sqrt())

    @lru_cache(maxsize=4096)  # noqa: B019 - two mixtures live as long as the run
    def _terms(self, k):
        variance = self.stds**2 + k * k
        constant = self.weights.log() - 0.5 * (self.means**2).sum(1) / variance - self.dim / 2 * variance.log()
        return variance, (self.means / variance[:, None]), constant

    def _shares(self, y, k):
        variance, scaled, constant = self._terms(k)
        logits = torch.addmm(constant, y, scaled.T)
        logits.sub_((0.5 * (y * y).sum(1))[:, None] / variance)
        return logits.softmax(1), variance, scaled

    def denoised(self, y, k):
        """E[x_0 | y], shape and dtype of y."""
        at = y.double()
        shares, variance, scaled = self._shares(at, k)
        mean = torch.addmm(at * (shares @ (self.stds**2 / variance))[:, None], shares, scaled, alpha=k * k)
        return mean.to(y.dtype)

    def noise(self, y, k):
        """E[eps | y] = (y - E[x_0 | y]) / k, finite at k = 0 too."""
        at = y.double()
        shares, variance, scaled = self._shares(at, k)
        slope = torch.addmm(at * (shares @ variance.reciprocal())[:, None], shares, scaled, alpha=-1)
        return (k * slope).to(y.dtype)


MIXTURES = {"gmm2": Mixture("gmm2", 2, 8, 0.03, 0.2), "gmm64": Mixture("gmm64", 64, 16, 0.05, 0.25)}


class Problem:
    """A mixture under a schedule, and its starts.

    Args:
        mixture: Name in MIXTURES.
        schedule: Name in SCHEDULES.
        starts: How many.
    """

    def __init__(self, mixture, schedule, starts):
        self.name = f"{mixture} {schedule}"
        self.schedule_name = schedule
        self.mixture, self.schedule = MIXTURES[mixture], SCHEDULES[schedule]
        z = np.random.default_rng(7).standard_normal((10_000, self.mixture.dim))
        self.z = torch.from_numpy(z)[:starts]
        self.alpha, self.sigma = scales(self.schedule, 1.0)
        self.k_max = self.sigma / self.alpha
        alpha, sigma = scales(self.schedule, self.schedule.t_min)
        self.k_min = sigma / alpha
        self.calls = 0

    def denoised(self, y, k):
        """E[x_0 | y], counted."""
        self.calls += 1
        return self.mixture.denoised(y, float(k))

    def noise(self, y, k):
        """E[eps | y], counted."""
        self.calls += 1
        return self.mixture.noise(y, float(k))

    @cached_property
    def k_table(self):
        """sigma / alpha of 1000 levels, rising: the schedule's own levels, or equal distances in its time."""
        times = torch.linspace(1e-3, 1, 1000, dtype=torch.float64)
        return self.schedule.sigma(times) / self.schedule.alpha(times)

    @cached_property
    def truth(self):
        """Where the exact ODE takes each start, shape of z."""
        key = hashlib.sha256(self.mixture.means.numpy().tobytes() + self.z.numpy().tobytes())
        key.update(repr((self.name, self.k_max, TOLERANCE, "1")).encode())
        path = CACHE / f"{self.name.replace(' ', '-')}-{key.hexdigest()[:16]}.npy"
        if path.exists():
            return torch.from_numpy(np.load(path))
        found = exact_end(self.mixture, self.k_max * self.z, self.k_max)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found.numpy())
        return found

    def rmse(self, end):
        """The root of the mean squared distance to the truth over starts and dimensions; NaN becomes infinity."""
        error = float((end.double() - self.truth[: len(end)]).square().mean().sqrt())
        return error if math.isfinite(error) else math.inf

    def denoiser(self):
        """The problem as a person of unnoise has it; calls are counted here."""
        return _Ours(self)


class _Ours(Denoiser):
    def __init__(self, problem):
        super().__init__()
        self.problem, self.schedule = problem, problem.schedule
        self.sigma_data = problem.mixture.sigma_data

    def forward(self, x_t, t, cond=None):
        alpha, sigma = scales(self.schedule, float(t))
        return self.problem.denoised(x_t / alpha, sigma / alpha)


def exact_end(mixture, y, k_max):
    """The probability-flow ODE to clean data in steps halved until nothing moves by more than TOLERANCE (RMSE).

    Dormand and Prince's formula of order 8 in u = asinh(k / s), which is the logarithm of the noise where there is much and
    the noise itself where there is little; and where y grows with k, its ratio to sqrt(k^2 + s^2) is what is integrated.
    """
    last = None
    steps = 120
    while True:
        ends = torch.cat([_solve(mixture, part, k_max, steps) for part in y.split(2000)])
        if last is not None:
            moved = (ends - last).norm(dim=1) / math.sqrt(y.shape[1])
            if float(moved.square().mean().sqrt()) < TOLERANCE:
                return ends
        if steps > 20_000:
            raise RuntimeError(f"the exact solution of {mixture.name} does not settle")
        last, steps = ends, 2 * steps


def _solve(mixture, y, k_max, steps):
    s = 0.1
    top = math.asinh(k_max / s)
    h = -top / steps
    stages, weights, nodes = DOP853.A[:12, :12], DOP853.B, DOP853.C[:12]

    def slope(u, v):  # v = y / sqrt(k^2 + s^2), dk/du = sqrt(k^2 + s^2)
        k = s * math.sinh(u)
        r = math.hypot(k, s)
        return mixture.noise(r * v, k) - (k / r) * v

    v = y / math.hypot(k_max, s)
    for i in range(steps):
        u = top + i * h
        slopes = []
        for stage in range(12):
            at = v.clone()
            for j, past in enumerate(slopes):
                if stages[stage, j]:
                    at.add_(past, alpha=float(h * stages[stage, j]))
            slopes.append(slope(max(u + nodes[stage] * h, 0.0), at))
        for weight, past in zip(weights, slopes, strict=True):
            if weight:
                v = v.add(past, alpha=float(h * weight))
    return s * v


def check_against_oracle():
    """The largest difference between the fast denoiser and unnoise's oracle over noise scales and mixtures."""
    worst = 0.0
    for mixture in MIXTURES.values():
        oracle = GaussianMixtureOracle(mixture.means, mixture.stds, mixture.weights, SCHEDULES["edm"])
        for t in (0.05, 0.2, 0.5, 0.8, 1.0):
            time = torch.tensor(t, dtype=torch.float64)
            k = float(SCHEDULES["edm"].sigma(time))
            y = mixture.means[:8].repeat(4, 1) + k * torch.from_numpy(
                np.random.default_rng(1).normal(size=(32, mixture.dim))
            )
            wanted = oracle(y, time)
            worst = max(worst, float((mixture.denoised(y, k) - wanted).abs().max()))
            worst = max(worst, float((y - k * mixture.noise(y, k) - wanted).abs().max()))
    return worst
