"""What may be wrong between the noise schedule, the data, the times that are trained and the times that are sampled."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...denoisers.base import denoisers
from ...process.base import Schedule, log_snr_at, scales
from ...samplers.grids import make_grid
from .base import DiffusionCheck, Finding, checks
from .patients import DiffusionPatient

LEFT_HINT, LEFT_WARNING, LEFT_ERROR = 0.06, 0.15, 0.5
"""Of what is left of the data at t = 1, as a share of the noise."""
SIGMA_HINT, SIGMA_WARNING = 1.25, 2.0
RARELY = 1e-3
"""A share of the training samples."""
TELLING = 0.05, 10.0
"""Noise, in standard deviations of the data, at which a denoiser has something to say: below it hardly changes its input, above
it says the mean of the data."""


@checks.register("no-signal")
class NoSignal(DiffusionCheck):
    """A prediction that says nothing where no signal is left, on a schedule that ends there."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        name, process = patient.recipe.denoiser.name, patient.recipe.process
        if denoisers[name].needs_signal and process.vanishing:
            yield Finding(
                "error",
                f"{name} prediction on a schedule with zero terminal SNR (alpha(1) = 0)",
                "at t = 1 the input is the noise itself, and no data can be worked out of it; training refuses it",
                "denoiser=v",
            )


@checks.register("signal-left")
class SignalLeft(DiffusionCheck):
    """Signal that is left at t = 1, which samples begin without."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        process, height = patient.recipe.process, patient.height
        alpha, sigma = scales(process, 1.0)
        left = alpha * height / sigma
        if left < LEFT_HINT or patient.report.low == patient.report.high:
            return
        log_snr = log_snr_at(process, 1.0)
        yield Finding(
            "error" if left > LEFT_ERROR else "warning" if left > LEFT_WARNING else "hint",
            f"at t = 1 the data still stands at {left:.2g} of the height of the noise (log-SNR {log_snr:.1f}, data of height "
            f"{height:.2g})",
            "samples begin with noise alone, which training never shows: they lose brightness and large shapes, or stay noise",
            _more_noise(process, height),
        )


def _more_noise(process: Schedule, height: float) -> str:
    """The option that lets a schedule end in noise."""
    name = process.registered_name  # type: ignore[attr-defined]
    if name == "variance_exploding":
        return f"process.sigma_max={50 * height:.2g}"
    if name in ("linear", "scaled_linear") and process.num_steps:
        # The betas of 1,000 levels that DDPM was made with, on fewer levels: alpha-bar is about exp(-10) at the end.
        total = 20 if name == "linear" else 30
        return f"process.beta_end={min(0.999, total / process.num_steps):.4g}"
    return "process=cosine"


@checks.register("sigma-data")
class SigmaData(DiffusionCheck):
    """sigma_data that is not the standard deviation of the encoded data."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        said = patient.recipe.denoiser.sigma_data
        if patient.encoded is None or said == "auto":
            return
        found = float(patient.encoded.std())
        factor = max(said / found, found / said) if found else 1.0
        if factor > SIGMA_HINT:
            yield Finding(
                "warning" if factor > SIGMA_WARNING else "hint",
                f"sigma_data is {said:g}, and the encoded data has a standard deviation of {found:.4g}",
                "the network's inputs and targets are then not of unit variance, and noise levels count wrongly",
                "denoiser.sigma_data=auto",
            )


@checks.register("times")
class Times(DiffusionCheck):
    """Times that the sampler visits and training hardly ever does."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        recipe = patient.recipe
        said = recipe.denoiser.sigma_data
        spread = 1.0 if said == "auto" else said
        whole = make_grid(recipe.sampling.grid, recipe.sampling.steps, recipe.process, sigma_data=spread)
        grid, half_way = whole[:-1], (whole[1:] + whole[:-1]) / 2
        above = torch.cat([whole[:1], half_way[:-1]])
        ends = torch.tensor([RARELY, 1 - RARELY], dtype=torch.float64)
        first, last = recipe.objective.times.quantile(ends, recipe.process).tolist()
        noise = torch.exp(-recipe.process.log_snr(grid) / 2) / spread
        telling = (noise >= TELLING[0]) & (noise <= TELLING[1])
        starved = telling & (
            (above < first) | (half_way > last)
        )  # no training from half way to one step to half way to the next
        if not bool(starved.any()):
            return
        low, high = float(noise[starved].min()), float(noise[starved].max())
        yield Finding(
            "warning",
            f"{int(starved.sum())} of {int(telling.sum())} telling steps of sampling stand at noise {low:.2g} to {high:.2g} of the "
            f"data's spread, where fewer than {RARELY:.1%} of the training samples are",
            "what the network says there is a guess: the density of times is narrower than the way that the sampler takes",
            "objective.times=uniform",
        )
