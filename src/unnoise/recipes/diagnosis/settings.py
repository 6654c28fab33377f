"""What may be wrong with how long, how fast and on what is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...errors import BadOption
from ...nn.dit import DiTConfig
from ...precision import lower, multiplies_bf16
from ...training.averages import Average, ExponentialAverage, HalfLifeAverage
from ...training.execution import checkpoint_blocks, training_dtype
from ...training.memory import MARGIN, free_bytes, kept_bytes, state_bytes
from ...training.settings import TrainingSettings
from ...training.threads import step_operations
from .base import Check, DiffusionCheck, Finding, RecipeCheck, checks
from .data import Constant, NotFinite
from .patients import DiffusionPatient, RecipePatient
from .rates import HIGH_RATES
from .schedule import NoSignal
from .values import ChannelsLast

STRONG, HIGH_OFFSET = 30.0, 1.0
"""Guidance and offset noise that nobody works with."""
REACH = 0.02
"""How far a weight must at least be able to move in a whole run."""


@checks.register("guidance")
class Guidance(DiffusionCheck):
    """Guidance by a null condition that is never trained, or of a model that knows no condition."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        scale, dropout = patient.recipe.sampling.guidance, patient.recipe.objective.condition_dropout
        conditioning = patient.recipe.conditioning
        known = patient.report.labels or conditioning.text or conditioning.boxes or conditioning.map != "none"
        if not known:
            if scale != 1:
                told = f"sampling.guidance is {scale:g}, and the data has no labels"
                yield Finding("hint", told, "guidance then does nothing", "sampling.guidance=1")
        elif dropout == 0 and scale != 1:
            yield Finding(
                "error",
                f"samples are guided by {scale:g}, and condition_dropout is 0",
                "guidance compares with the model without a condition, which is then never trained: samples are pushed at random",
                "objective.condition_dropout=0.1",
            )
        elif dropout == 1:
            yield Finding(
                "error", "condition_dropout is 1", "no label is ever seen, so none is learned",
                "objective.condition_dropout=0.1",
            )  # fmt: skip
        elif scale > STRONG:
            yield Finding(
                "hint",
                f"sampling.guidance is {scale:g}",
                "hardly any model bears more than 15: samples are pushed out of the data, to glaring colours or all to one place",
                "sampling.guidance=4",
            )


@checks.register("noise-offset")
class NoiseOffset(DiffusionCheck):
    """Offset noise that outweighs the noise itself."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        offset = patient.recipe.objective.noise.offset
        if offset > HIGH_OFFSET:
            yield Finding(
                "hint",
                f"objective.noise.offset is {offset:g}",
                "about 0.1 is usual: above 1 most of the noise is one number for a whole channel, which samples do not begin with",
                "objective.noise.offset=0.1",
            )


@checks.register("average-length")
class AverageLength(RecipeCheck):
    """A moving average of the weights that looks back further than the run is long."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training = patient.recipe.training
        long = [average for average in training.ema if _horizon(average, training) > training.steps]
        if not long:
            return
        kept = dict.fromkeys("power-0.1" if each in long else each.name for each in training.ema)
        one = next(iter(kept)) if len(kept) == 1 else f"[{','.join(kept)}]"
        fix = f"training.ema={one}"
        if training.model_average in [each.name for each in long]:
            fix += " training.model_average=power-0.1"
        yield Finding(
            "warning",
            f"the average {long[0].name} looks back {_horizon(long[0], training):,.0f} steps, and the run has {training.steps:,}",
            "it never becomes that long: the model stays the short average that a run begins with, whatever was asked for",
            fix,
        )


def _horizon(average: Average, training: TrainingSettings) -> float:
    """The steps over which an average is taken; one that grows with the run always fits."""
    if isinstance(average, ExponentialAverage):
        return 1 / (1 - average.memory)
    if isinstance(average, HalfLifeAverage):
        return average.images / training.batch_size
    return 0.0


@checks.register("warmup")
class Warmup(RecipeCheck):
    """A warm-up that is longer than the run."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training = patient.recipe.training
        unit = training.batch_size if training.counted_in == "images" else 1
        if training.warmup < training.steps * unit:
            return
        yield Finding(
            "warning",
            f"the warm-up takes {training.warmup:,} {training.counted_in}, and the run has {training.steps * unit:,}",
            f"the learning rate never rises above {training.learning_rate(training.steps - 1):.2g} of {training.lr:g}",
            f"training.warmup={training.steps * unit // 20}",
        )


@checks.register("learning-rate")
class LearningRate(RecipeCheck):
    """A learning rate that is far out for the optimizer or for the length of the run."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training = patient.recipe.training
        name = training.optimizer.registered_name  # type: ignore[attr-defined]
        high = HIGH_RATES.get(name, math.inf)
        if training.lr == 0:
            yield Finding("error", "the learning rate is 0", "nothing will ever be learned", "training.lr=1e-3")
        elif training.lr > high:
            yield Finding(
                "error" if training.lr > 10 * high else "warning",
                f"the learning rate is {training.lr:g}, and {name} hardly ever bears more than {high:g}",
                "every step overshoots: the loss stays high or becomes NaN",
                f"training.lr={high / 20:g}",
            )
        elif not training.optimizer.proportional and patient.recipe.begins_anew and (reach := _reach(training)) < REACH:
            more = 20 * REACH / reach
            yield Finding(
                "warning",
                f"with a learning rate of {training.lr:g} no weight moves further than about {reach:.2g} in the whole run",
                f"{name} moves a weight by about the learning rate a step at most: the network stays what it was at the beginning",
                f"training.lr={training.lr * more:.1g}"
                if training.lr * more < high
                else f"training.steps={math.ceil(training.steps * more)}",
            )


def _reach(training: TrainingSettings) -> float:
    """The sum of the learning rates of all steps, from a thousand of them."""
    every = max(1, training.steps // 1000)
    return sum(training.learning_rate(step) for step in range(0, training.steps, every)) * every


@checks.register("seldom")
class Seldom(RecipeCheck):
    """Something that is to happen every so many steps of a run that has fewer."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        training = patient.recipe.training
        asked = {
            "training.validate_every": training.validate_every,
            "training.sample_every": training.sample_every if patient.work is None or patient.work.drawn else 0,
            "training.checkpoint_every": training.checkpoint_every,
            "training.log_every": training.log_every,
        }
        late = {name: every for name, every in asked.items() if every > training.steps}
        fixes = [f"{name}={max(1, training.steps // 5)}" for name in late]
        measured = patient.recipe.evaluation.every if isinstance(patient, DiffusionPatient) else 0
        if measured > training.steps * training.batch_size:
            late["evaluation.every"] = measured
            fixes.append(f"evaluation.every={max(1, training.steps * training.batch_size // 5)}")
        if late:
            told = ", ".join(f"{name} is {every:,}" for name, every in late.items())
            seen = f"{told}, and the run has {training.steps:,} steps of {training.batch_size} samples"
            yield Finding(
                "hint",
                seen,
                "it happens at the end alone, when it is too late to see or save anything",
                " ".join(fixes),
            )


@checks.register("refused")
class Refused(RecipeCheck):
    """Whatever else training would refuse to begin with."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        error, known = patient.refusal, (NotFinite(), Constant(), ChannelsLast(), NoSignal(), Memory())
        if error is not None and not any(_speaks(check, patient) for check in known):
            yield Finding("error", str(error), f"training refuses to begin ({type(error).__name__})")


def _speaks(check: Check, patient: RecipePatient) -> bool:
    return isinstance(patient, check.needs) and any(True for _ in check.look(patient))


@checks.register("memory")
class Memory(RecipeCheck):
    """A batch that does not fit in memory."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        recipe, device = patient.recipe, patient.device
        if patient.network is None or patient.work is None or device is None:
            return
        free = free_bytes(device)
        if free is None:
            return
        trainee = patient.beginning()
        network, shape, batch = trainee.network, patient.work.input_shape, recipe.training.batch_size
        if recipe.machine.activation_checkpointing:
            try:
                checkpoint_blocks(network)
            except BadOption:  # which training refuses
                return
        lower(network, training_dtype(recipe.machine, device, step_operations(network, shape, batch)))
        at_once, in_parts = min(recipe.machine.micro_batch or batch, batch), "; in parts the result is the same"
        one, two = (kept_bytes(network, shape, n, device=recipe.machine.keeps_as(device)) for n in (1, 2))
        each = MARGIN * max(two - one, 1)
        fixed = MARGIN * max(2 * one - two, 0) + state_bytes(network, len(recipe.training.averages))
        if fixed + at_once * each <= free:
            return
        most = math.floor((free - fixed) / each)
        smaller = "machine.activation_checkpointing=true" if most < 1 else f"machine.micro_batch={most}"
        if trainee.whole:  # no part of a batch can be worked on by itself
            smaller = f"training.batch_size={most}" if most > 0 else ""
        yield Finding(
            "error",
            f"{at_once:,} samples at once need about {(fixed + at_once * each) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            "training refuses it" + (": not even one sample fits" if most < 1 else "" if trainee.whole else in_parts),
            smaller,
        )


@checks.register("precision")
class Precision(RecipeCheck):
    """bfloat16 on hardware that does not multiply it faster."""

    def look(self, patient: RecipePatient) -> Iterator[Finding]:
        """See `RecipeCheck.look`."""
        device = patient.device
        if patient.recipe.machine.precision == "bf16" and device is not None and not multiplies_bf16(device):
            yield Finding(
                "warning",
                f"the network is to compute in bf16, which this {device.type} does not multiply faster than float32",
                "numbers become coarser and steps slower",
                "machine.precision=auto",
            )


@checks.register("capacity")
class Capacity(DiffusionCheck):
    """A network whose answers cannot fill the space of the data: all of them lie in a subspace as wide as its last layer."""

    def look(self, patient: DiffusionPatient) -> Iterator[Finding]:
        """See `DiffusionCheck.look`."""
        if patient.work is None or patient.network is None:
            return
        config, shape = patient.recipe.network.config, patient.work.input_shape
        option, values = "width", math.prod(shape)
        if isinstance(config, DiTConfig):
            patch = config.patch if isinstance(config.patch, tuple) else (config.patch,) * (len(shape) - 1)
            values, what = shape[0] * math.prod(patch), "a patch"
        elif patient.recipe.network.name in ("mlp", "seed_mlp"):
            option, what = ("width" if patient.recipe.network.name == "mlp" else "hidden"), "a sample"
        else:
            return
        width = getattr(config, option)
        if width < values:
            yield Finding(
                "warning",
                f"{what} has {values:,} values, and the network's last layer {width:,} units",
                f"its answers lie in {width:,} dimensions of {values:,}: at least {1 - width / values:.0%} of any noise is out of "
                "its reach",
                f"network.{option}={values}",
            )
