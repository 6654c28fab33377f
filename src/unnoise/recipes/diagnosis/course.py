"""What the numbers of a run tell of its course."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...data.base import AnyDataset, Dataset
from ...data.streaming.dataset import ShardedDataset
from ...precision import processors
from ...process.base import log_snr_at
from ...training.prefetch import MOST_CHOSEN
from ..metrics import FAR_ABOVE
from ..noising import stand_in
from .base import DiffusionRunCheck, Finding, RunCheck, checks
from .runs import DiffusionRunPatient, RunPatient

FEW_STEPS = 50
NOTHING_LEARNED = 0.95
BELOW = 0.9
"""Of the Bayes floor: chance does not bring a loss so far below it."""
RISEN = 1.1
SPIKE, MANY_SPIKES = 5.0, 3
SMALL_BATCH, LARGE_BATCH = 0.01, 10.0
"""Of the gradient noise scale."""
LEFT_BEHIND, ON_THE_WHOLE = 0.9, 0.5
WAITED, WAITED_SECONDS = 0.1, 1e-3
"""Of the time, and of a step: what is waited for less costs nobody anything."""


@checks.register("diverged")
class Diverged(RunCheck):
    """A loss, a gradient or weights that became NaN, after which the run went back or ended."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        training = patient.recipe.training
        back = patient.went_back
        broken = [line["step"] for line in patient.steps if not math.isfinite(line["loss"])]
        if not back and not broken:
            return
        ended = patient.steps_made < training.steps
        told = back[-1] if back else f"the loss of step {broken[0]:,} is no number"
        yield Finding(
            "error" if ended else "warning",
            told + (f", and the run ended at step {patient.steps_made:,} of {training.steps:,}" if ended else ""),
            f"the learning rate of {training.lr:g} is too high for these weights, or a sample is far out",
            patient.again(*patient.calmer),
        )


@checks.register("exploded")
class Exploded(RunCheck):
    """A loss that is a number, and ended far above where it began."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        if patient.exploded is None:
            return
        first, last = patient.exploded
        began, ended = first["validation_loss"], last["validation_loss"]
        losses = [(line["step"], line.get("validation_loss", line.get("loss", 0.0))) for line in patient.lines]
        step, highest = next((step, loss) for step, loss in losses if loss > FAR_ABOVE * began)
        training = patient.recipe.training
        yield Finding(
            "error",
            f"the validation loss began at {began:.4g} and is {ended:.4g} at step {last['step']:,}; the first loss so far up is "
            f"{highest:.3g} at step {step:,}",
            f"the steps overshoot: the learning rate of {training.lr:g} is too high"
            + ("" if training.clip else ", and no gradient is clipped"),
            patient.again(*patient.calmer),
        )


@checks.register("loss-flat")
class LossFlat(RunCheck):
    """A loss that never fell."""

    def can_tell(self, patient: RunPatient) -> bool:
        """See `Check.can_tell`; a run that starts from a model may have nothing to learn any more."""
        lines = patient.validations
        return patient.recipe.begins_anew and len(lines) >= 2 and lines[-1]["step"] >= FEW_STEPS

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        lines = patient.validations
        if not self.can_tell(patient) or patient.exploded:
            return
        first, best = lines[0]["validation_loss"], min(line["validation_loss"] for line in lines)
        floor = min(lines[-1].get("bayes_floor", 0.0), best)
        if first - floor > 0.05 * first and best - floor >= NOTHING_LEARNED * (first - floor):
            rate = patient.recipe.training.lr
            yield Finding(
                "error",
                f"in {lines[-1]['step']:,} steps the validation loss came from {first:.4g} to {best:.4g} at best",
                f"nothing was learned: the learning rate ({rate:g}) is far out, or the network is cut off from the loss",
                patient.try_recipe,
            )


@checks.register("below-floor")
class BelowFloor(DiffusionRunCheck):
    """A loss below the Bayes floor, which no model can have."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        lines = patient.validations
        if not lines or "bayes_floor" not in lines[-1] or patient.recipe.training.validation_share:
            return
        by_time = lines[-1].get("by_time") or {}
        floor = _mean(by_time.get("floor")) or lines[-1]["bayes_floor"]  # on the same triples, where it is there
        loss = lines[-1]["validation_loss"]
        if floor > 1e-6 and loss < BELOW * floor:
            yield Finding(
                "error",
                f"the validation loss is {loss:.4g}, below the Bayes floor of {floor:.4g}",
                "no model can do that: the network sees the clean data or the noise, or loss and floor are of two problems",
            )


@checks.register("overfitting")
class Overfitting(RunCheck):
    """A loss of held-out data that rises again."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        lines = patient.validations
        if not patient.recipe.training.validation_share or len(lines) < 4 or patient.exploded:
            return
        best = min(lines, key=lambda line: line["validation_loss"])
        last = lines[-1]
        if last["validation_loss"] > RISEN * best["validation_loss"] and best["step"] < 0.8 * last["step"]:
            yield Finding(
                "warning",
                f"the loss of held-out data was {best['validation_loss']:.4g} at step {best['step']:,} and is "
                f"{last['validation_loss']:.4g} at step {last['step']:,}",
                "the network learns the training data by heart: stop earlier, find more data, or take a smaller network",
                patient.again(f"training.steps={max(best['step'], 1)}"),
            )


@checks.register("spikes")
class Spikes(RunCheck):
    """Losses of single steps that stand far above their neighbours."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        losses = [(line["step"], line["loss"]) for line in patient.steps if math.isfinite(line["loss"])]
        found = []
        for i, (step, loss) in enumerate(losses):
            around = [each for _, each in losses[max(0, i - 4) : i] + losses[i + 1 : i + 5]]
            if len(around) >= 6 and loss > SPIKE * statistics.median(around):
                found.append((step, loss))
        if found:
            step, loss = max(found, key=lambda each: each[1])
            training = patient.recipe.training
            yield Finding(
                "warning" if len(found) >= MANY_SPIKES else "hint",
                f"{len(found)} of {len(losses)} logged losses stand {SPIKE:g} times above their neighbours, most of all "
                f"{loss:.3g} at step {step:,}",
                "single steps go far astray: the learning rate is at its limit, or some samples are far out",
                patient.again(f"training.lr={training.lr / 2:.2g}", "training.clip=1"),
            )


@checks.register("always-clipped")
class AlwaysClipped(RunCheck):
    """A gradient that is cut at every step."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        training = patient.recipe.training
        warm = training.warmup // (training.batch_size if training.counted_in == "images" else 1)
        norms = [line["gradient_norm"] for line in patient.steps if line["step"] > warm]
        if not training.clip or len(norms) < 8:
            return
        cut = sum(norm > training.clip for norm in norms)
        if cut >= 0.95 * len(norms):
            usual = statistics.median(norms)
            plain = training.optimizer.proportional
            yield Finding(
                "warning" if plain else "hint",
                f"the gradient's norm is about {usual:.3g}, and {cut} of {len(norms)} logged steps were cut to {training.clip:g}",
                "the steps are shorter than the learning rate says"
                if plain
                else "all samples of large loss count less than they should",
                patient.again(f"training.clip={2 * usual:.2g}"),
            )


@checks.register("noise-scale")
class NoiseScale(RunCheck):
    """A batch far from the gradient noise scale."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        found = [line["gradient_noise_scale"] for line in patient.steps if "gradient_noise_scale" in line]
        if len(found) < 8:
            return
        scale, batch = found[-1], patient.recipe.training.batch_size
        if batch < SMALL_BATCH * scale:
            yield Finding(
                "hint",
                f"the gradient noise scale is {scale:,.0f} samples, and a batch has {batch:,}",
                "a gradient is mostly chance: larger batches, or a longer average of the weights, would make more of each sample",
                patient.again(f"training.batch_size={2 ** math.ceil(math.log2(4 * batch))}"),
            )
        elif batch > LARGE_BATCH * scale and batch >= 32:
            yield Finding(
                "hint",
                f"the gradient noise scale is {scale:,.0f} samples, and a batch has {batch:,}",
                "half of the batch would give almost the same gradient: smaller batches and more steps learn faster",
                patient.again(
                    f"training.batch_size={max(1, batch // 4)}", f"training.steps={4 * patient.recipe.training.steps}"
                ),
            )


@checks.register("noise-levels")
class NoiseLevels(DiffusionRunCheck):
    """Noise levels at which little was learned, where much was at others."""

    def look(self, patient: DiffusionRunPatient) -> Iterator[Finding]:
        """See `DiffusionRunCheck.look`."""
        lines = [line for line in patient.validations if (line.get("by_time") or {}).get("floor")]
        if len(lines) < 2 or lines[-1]["step"] < FEW_STEPS:
            return
        began, now = lines[0]["by_time"], lines[-1]["by_time"]
        first, last, floor, t = began["loss"], now["loss"], now["floor"], now["t"]
        to_learn = [a - f for a, f in zip(first, floor, strict=True)]
        left = [b - f for b, f in zip(last, floor, strict=True)]
        if sum(to_learn) <= 0 or sum(left) > ON_THE_WHOLE * sum(to_learn):
            return
        stuck = [
            t[k]
            for k in range(len(t))
            if self._fair(patient, t[k]) and to_learn[k] > 0.1 * first[k] and left[k] > LEFT_BEHIND * to_learn[k]
        ]
        if stuck:
            yield Finding(
                "hint",
                f"from t = {min(stuck):.3g} to {max(stuck):.3g} the loss is where it began, far above its floor, and over all "
                f"times {1 - sum(left) / sum(to_learn):.0%} of what can be learned is",
                "these times count too little in the loss, or the network does not tell them from others",
                patient.again("objective.weighting=uniform", "objective.uncertainty=true"),
            )

    def _fair(self, patient: DiffusionRunPatient, t: float) -> bool:
        """Whether a network can reach the floor at a time without knowing the data by heart.

        The floor is that of who knows the samples. Where noise is smaller than the distance from one sample to the next, it is
        near 0 for that reason alone.
        """
        model = patient.model
        process = stand_in(patient.recipe.process) if model is None else model.blueprint.process
        return patient.spacing is not None and log_snr_at(process, t) < -2 * math.log(patient.spacing)


@checks.register("waiting")
class Waiting(RunCheck):
    """Steps that wait for their data."""

    def can_tell(self, patient: RunPatient) -> bool:
        """See `Check.can_tell`."""
        return patient.data is not None and bool(self._told(patient))

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        told = self._told(patient)
        if patient.data is None or not told:
            return
        share, rate = told[-1]["waiting_for_data"], told[-1]["samples_per_second"]
        if share <= WAITED or share * patient.recipe.training.batch_size < WAITED_SECONDS * rate:
            return
        data, now = patient.data.read, patient.recipe.machine.workers
        yield Finding(
            "warning",
            f"the steps waited for their data in {share:.0%} of the time (machine.workers={now})",
            *(self._of_memory(patient) if isinstance(data, Dataset) else self._of_storage(patient, data)),
        )

    def _told(self, patient: RunPatient) -> list[Mapping[str, Any]]:
        """The lines that tell it, of which each is about all steps since the run was last started."""
        return [line for line in patient.steps if line.get("samples_per_second") and "waiting_for_data" in line]

    def _of_memory(self, patient: RunPatient) -> tuple[str, str]:
        """Cause and fix where only the examples have to be made of the data."""
        if patient.recipe.machine.workers in ("auto", 0):
            return "its examples are made between the steps; a thread would make them meanwhile", self._with(patient, 1)
        return "to make its examples takes longer than to learn from them: a faster processor, or a larger network", ""

    def _of_storage(self, patient: RunPatient, data: AnyDataset) -> tuple[str, str]:
        """Cause and fix where the data is read as it is needed: more workers while there are processors, then large files."""
        workers, spare = patient.recipe.machine.workers, processors() - 1
        now = MOST_CHOSEN if workers == "auto" else workers
        more = min(spare, max(2 * now, MOST_CHOSEN))
        slow = "to read and decode it takes longer than to learn from it"
        if more > now:
            return slow, self._with(patient, more)
        slow = f"{slow}, and no processor is left for more workers"
        if isinstance(data, ShardedDataset) and not data.lanes:  # each picture a file of its own
            path = str(getattr(patient.recipe.data, "path", ""))
            packed = f"{path.rstrip('/')}-shards"
            pack = shlex.join(["unnoise", "pack", path, "-o", packed])
            return f"{slow}: a few large files are read faster", f"{pack} && {patient.again('--data', packed)}"
        return f"{slow}: store its pictures no larger than they are learned, or on a faster disk", ""

    def _with(self, patient: RunPatient, workers: int) -> str:
        """The command that goes on with so many workers, or begins again where the run is through."""
        goes_on = patient.steps_made < patient.recipe.training.steps
        return (patient.on if goes_on else patient.again)(f"machine.workers={workers}")


@checks.register("unfinished")
class Unfinished(RunCheck):
    """A run that has not made all of its steps."""

    def look(self, patient: RunPatient) -> Iterator[Finding]:
        """See `RunCheck.look`."""
        if patient.steps_made < patient.recipe.training.steps:
            yield Finding(
                "hint",
                f"{patient.steps_made:,} of {patient.recipe.training.steps:,} steps are made",
                "the run was stopped, or still goes on; the same command goes on from its last checkpoint",
                "" if patient.went_back else patient.on(),
            )


def _mean(values: Sequence[float] | None) -> float | None:
    return sum(values) / len(values) if values else None
