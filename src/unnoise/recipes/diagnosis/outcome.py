"""What came out of a run: checkpoints, weights and samples."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import DataError
from ...evaluation.memorisation import copying
from ...objectives.mse import preconditioned
from ...samplers.base import samplers
from ...training.checkpoint import checkpoints
from ...training.threads import step_operations
from ...training.validation import Validation
from ..words import captions_again
from .base import DiffusionRunCheck, Finding, RunCheck, checks
from .runs import DiffusionRunPatient, RunPatient

AS_FAR_AS_NOISE = 0.5
"""Of the way from the data to white noise of its mean and spread, by distances to the nearest sample of the data."""
TELLS_NOISE = 1.2
"""How much further from the data noise must be than the data itself: else the data is noise of a kind."""
GREY, ALIKE = 0.25, 0.25
"""Shares of the contrast of the data, and of the differences within it."""
MOVED = 1.0
"""In standard deviations of the brightness of whole pictures."""
CUT_OFF = 0.25
"""Of all values."""
LAGS = 1.2
_TRIPLES, _OPERATIONS = 512, 1e12  # of which the latter limits the former
_COMPARED = 1000


class SamplesCheck(DiffusionRunCheck):
    """A check of what the model draws, held against the data."""

    def can_tell(self, patient: DiffusionRunPatient) -> bool:
        """See `Check.can_tell`."""
        return patient.samples is not None


@checks.register("checkpoint")
class DamagedCheckpoint(RunCheck):
    """A checkpoint that is damaged, or holds another network."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        found, damaged = patient.newest
        place = patient.folder / "checkpoints"
        if found is not None and (weight := patient.foreign_weight):
            # Without any the run would begin anew, and replace its model.
            alone = len(checkpoints(place)) - len(damaged) < 2
            yield Finding(
                "error",
                f"the newest checkpoint, {found.path.name}, holds the weights of another network (it differs in {weight})",
                "it was copied from another run, or recipe.yaml was changed; training refuses to go on from it",
                patient.again() if alone else shlex.join(["mv", str(found.path), str(patient.folder)]),
            )
        if not damaged:
            return
        if found is None:
            yield Finding(
                "error", f"no whole checkpoint is left: {damaged[0]}", "the run cannot go on; its model may still be whole",
                patient.again(),
            )  # fmt: skip
        else:
            yield Finding(
                "warning",
                f"{len(damaged)} newest checkpoints are damaged: {damaged[0]}",
                f"the disk was full or failed; the run goes on from step {found.step:,} instead",
                shlex.join(["rm", "-r", *(str(place / line.split(":")[0]) for line in damaged)]),
            )


@checks.register("model")
class DamagedModel(RunCheck):
    """A model that is missing or damaged."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        if patient.why_no_outcome:
            yield Finding("error", patient.why_no_outcome, "there is nothing to work with", patient.on())
        elif patient.outcome is not None and patient.outcome.notes:
            told = patient.outcome.notes[0]
            yield Finding("warning", told, "the model was made again from the newest checkpoint", patient.on())


@checks.register("weights")
class BrokenWeights(RunCheck):
    """Weights that are not finite."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        if broken := patient.broken_weights:
            rate = patient.recipe.training.lr
            yield Finding(
                "error",
                f"{len(broken)} weights of the model are NaN or infinite, the first is {broken[0]}",
                "the run diverged, or the file was made by something else",
                patient.again(f"training.lr={rate / 3:.2g}"),
            )


@checks.register("data-changed")
class DataChanged(RunCheck):
    """Data that is gone, or no longer what the run learned from."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        if patient.why_no_data:
            yield Finding(
                "warning", f"the data of the run cannot be read: {patient.why_no_data}", "it cannot go on or be judged"
            )
        elif patient.data is not None and patient.data.changed:
            yield Finding(
                "warning",
                "the data is not what the model was trained on: its fingerprint differs",
                "files were added, changed or removed; the run refuses to go on, and samples cannot be held against it",
                patient.again(),
            )


@checks.register("average-lag")
class AverageLag(DiffusionRunCheck):
    """An averaged model that is much worse than the weights that it is the average of."""

    def can_tell(self, patient: DiffusionRunPatient) -> bool:
        """See `Check.can_tell`."""
        whole = patient.newest[0] is not None and patient.model is not None and patient.data is not None
        return whole and patient.recipe.begins_anew and not patient.broken_weights and not patient.foreign_weight

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        checkpoint, _ = patient.newest
        model, recipe = patient.model, patient.recipe
        if not self.can_tell(patient) or checkpoint is None or model is None or patient.data is None:
            return
        data = patient.data.held_out if len(patient.data.held_out) else patient.data.train
        denoiser = model.blueprint.build(recipe.seed)
        network = preconditioned(denoiser).network
        assert network is not None
        others = preconditioned(
            model.denoiser
        ).network  # with what no checkpoint holds, as an encoder that stays as it is
        assert others is not None
        shapes = {name: tensor.shape for name, tensor in others.state_dict().items()}
        if any(shapes.get(name) != tensor.shape for name, tensor in checkpoint.part("ema/").items()):
            return  # the weights of another network
        buffers, losses, captions = others.state_dict(), {}, captions_again(recipe.conditioning, model.blueprint.text)
        of_one = step_operations(network, model.blueprint.input_shape, 1) / 3
        size = int(min(_TRIPLES, max(_OPERATIONS / of_one, 16)))
        for name in ("ema", "weights"):
            network.load_state_dict({**buffers, **checkpoint.part(f"{name}/")})
            triples = Validation(data, model.blueprint.codec, denoiser, recipe.objective, size, recipe.seed, captions)
            losses[name] = triples.loss(denoiser).loss
        if losses["ema"] > LAGS * losses["weights"]:
            yield Finding(
                "warning",
                f"the averaged model has a loss of {losses['ema']:.4g}, and the weights as they are one of {losses['weights']:.4g}",
                "the average looks back to weights that had not learned yet: it is too long, or the run too short",
                patient.again("training.ema=power-0.05"),
            )


@checks.register("sampling-fails")
class SamplingFails(DiffusionRunCheck):
    """Samples that become NaN or infinite on their way."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        if patient.why_no_samples:
            settings = patient.recipe.sampling
            name = samplers.describe(settings.sampler)["name"]
            yield Finding(
                "error",
                f"sampling fails: {patient.why_no_samples}",
                f"{name} with {settings.steps} steps and guidance {settings.guidance:g} runs away",
                patient.sample("--sampler", "heun", "--steps", "50", "--guidance", "1"),
            )


@checks.register("samples-noise")
class SamplesNoise(SamplesCheck):
    """Samples that are as far from the data as noise is."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is None or _grey(*pair) or _alike(*pair):
            return
        made, real = pair
        noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        others = [d for d in range(real.ndim) if d != 1]  # of each channel, or each coordinate of points
        noise = real.mean(others, keepdim=True) + real.std(others, keepdim=True) * noise
        if patient.model is not None and patient.model.spec.kind == "image":
            noise = noise.round().clamp(0, 255)
        if made.ndim > 2:  # brightness is another matter
            made = made + real.mean(others, keepdim=True) - made.mean(others, keepdim=True)
        own, away, whole = _nearest(real, None), _nearest(made, real), _nearest(noise, real)
        if whole > TELLS_NOISE * own and away - own > AS_FAR_AS_NOISE * (whole - own):
            what = "white noise" if away - own < 2 * (whole - own) else "further from the data than white noise"
            steps, astray = patient.recipe.training.steps, bool(patient.went_back or patient.exploded)
            longer = [f"training.steps={10 * steps}"] if patient.steps_made >= steps and not patient.exploded else []
            yield Finding(
                "error",
                f"samples are {what}: the nearest of the data is {away:.3g} away, from one of the data {own:.3g}, from noise "
                f"{whole:.3g}",
                "its steps went astray, as the log of the run says" if astray else
                "the network has learned next to nothing, or these are the weights of another run",
                patient.again(*longer, *(patient.calmer if astray else ())) if longer or astray else patient.on(),
            )  # fmt: skip


@checks.register("samples-grey")
class SamplesGrey(SamplesCheck):
    """Samples of one value each, or with hardly any contrast."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is not None and _grey(*pair):
            made, real = (_contrast(x) for x in pair)
            yield Finding(
                "error",
                f"samples have a contrast of {made:.3g}, and the data one of {real:.3g}",
                "the model says the mean of the data whatever it sees: it has not learned, or sampling begins without the noise "
                "that training showed it",
                patient.try_recipe,
            )


@checks.register("samples-alike")
class SamplesAlike(SamplesCheck):
    """Samples that are all alike."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is not None and _alike(*pair) and not _grey(*pair):
            made, real = (_differences(x) for x in pair)
            scale = patient.recipe.sampling.guidance
            yield Finding(
                "error",
                f"samples differ by {made:.3g} from each other, and samples of the data by {real:.3g}",
                f"guidance of {scale:g} pushes all of them to one place" if scale > 4 else
                "the network draws one thing whatever the noise: it was trained on too little, or its input is cut off",
                patient.sample("--guidance", "1.5") if scale > 4 else
                patient.try_recipe,
            )  # fmt: skip


@checks.register("samples-bright")
class SamplesBright(SamplesCheck):
    """Samples that are brighter or darker than the data as a whole."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is None or pair[0].ndim < 3 or _grey(*pair) or _alike(*pair):
            return
        made, real = (x.flatten(1).mean(1) for x in pair)
        away = float(made.mean() - real.mean())
        chance = float((made.var() / len(made) + real.var() / len(real)).sqrt())
        if abs(away) > max(MOVED * float(real.std()), 5 * chance):
            yield Finding(
                "warning",
                f"samples have a mean of {float(made.mean()):.3g}, and the data one of {float(real.mean()):.3g} (from picture to "
                f"picture it differs by {float(real.std()):.2g})",
                "the brightness of a whole picture is settled at the highest noise: signal is left at t = 1, or training hardly "
                "goes there",
                patient.try_recipe,
            )


@checks.register("samples-saturated")
class SamplesSaturated(SamplesCheck):
    """Pictures of which far more is quite black or quite white than of the data."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is None or patient.model is None or patient.model.spec.kind != "image":
            return
        made, real = (float(((x <= 0) | (x >= 255)).double().mean()) for x in pair)
        if made > real + CUT_OFF:
            scale = patient.recipe.sampling.guidance
            yield Finding(
                "warning",
                f"{made:.0%} of the values of samples are 0 or 255, and {real:.0%} of those of the data",
                f"values beyond the range of pixels are cut off: guidance of {scale:g} is too strong" if scale > 1 else
                "values beyond the range of pixels are cut off: the network has not learned how large they are",
                patient.sample("--guidance", f"{1 + (scale - 1) / 3:.2g}") if scale > 1 else patient.again(),
            )  # fmt: skip


@checks.register("copies")
class Copies(SamplesCheck):
    """Samples that are copies of training data."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        pair = _pair(patient)
        if pair is None or patient.data is None or _grey(*pair) or _alike(*pair):
            return
        train, held_out = patient.data.train, patient.data.held_out
        flips = train.augmentation.flips
        made, known, new = ((x if flips else x.flatten(1)) for x in (pair[0], train.x, held_out.x))
        try:
            found = copying(made, known, new if len(new) >= 16 else None, flips=flips, closest=1)
        except DataError:  # too little data to tell
            return
        if found.verdict == "copies":
            training = patient.recipe.training
            times = patient.steps_made * training.batch_size / len(train)
            yield Finding(
                "error",
                f"{found.copies.value:.0%} of samples are copies of training data ({found.against}: {found.baseline.value:.0%})",
                f"{len(train):,} samples were seen {times:,.0f} times each, and learned by heart: train for less long, take a "
                "smaller network, or find more data",
                patient.again(f"training.steps={max(1, training.steps // 10)}", "training.validation_share=0.1"),
            )


def _pair(patient: DiffusionRunPatient) -> tuple[Tensor, Tensor] | None:
    """Samples, and data spread over the whole, both shape (n, ...), float64; None where there are none."""
    if patient.samples is None or patient.data is None:
        return None
    train = patient.data.train
    some = torch.linspace(0, len(train) - 1, min(len(train), _COMPARED)).long()
    return patient.samples, train.x[some].double()


def _contrast(x: Tensor) -> float:
    """The standard deviation within a sample, in the middle of all samples."""
    return float(x.flatten(1).std(1).median())


def _differences(x: Tensor) -> float:
    """The root mean square distance of two samples."""
    return float((2 * x.flatten(1).var(0).sum()).sqrt())


def _grey(made: Tensor, real: Tensor) -> bool:
    return made.ndim > 2 and _contrast(made) < GREY * _contrast(real)


def _alike(made: Tensor, real: Tensor) -> bool:
    return _differences(made) < ALIKE * _differences(real)


def _nearest(x: Tensor, known: Tensor | None) -> float:
    """The distance to the nearest of some samples, in the middle; None for the other ones of x."""
    rows = x.flatten(1)
    distances = torch.cdist(rows, rows if known is None else known.flatten(1))
    if known is None:
        distances.fill_diagonal_(float("inf"))
    return float(distances.amin(1).median())
