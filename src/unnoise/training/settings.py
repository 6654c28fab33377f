"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import BadOption, UnknownName
from ..options import Checked, option
from .averages import Average, ExponentialAverage, PowerAverage, SeveralAverages
from .optimizers.adamw import AdamWOptimizer
from .optimizers.base import Optimizer, Rate, optimizers
from .rates import CosineRate, LearningRate, Progress, learning_rates


@dataclass(frozen=True)
class SnapshotSettings(Checked):
    """Power averages that are stored while a model is trained, of which `unnoise ema` makes one of any length afterwards."""

    every: int = option(0, help="steps between snapshots; 0 for none", low=0)
    lengths: tuple[float, ...] = option(
        (0.05, 0.1), help="lengths of the averages that are stored, as shares of the run", low=0.001, high=0.28
    )
    precision: Literal["fp32", "fp16"] = option(
        "fp32", help="numbers on the disk; fp16 is half as large, and fit for lengths of 0.03 and more"
    )

    def averages(self) -> tuple[Average, ...]:
        """What is stored."""
        return tuple(PowerAverage(length) for length in self.lengths) if self.every else ()

    def due(self, step: int, steps: int) -> bool:
        """Whether a snapshot is due after a step; always after the last."""
        return bool(self.every) and (step % self.every == 0 or step == steps)

    def count(self, steps: int) -> int:
        """How many there are of a whole run."""
        return -(-steps // self.every) if self.every else 0

    def size(self, parameters: int) -> int:
        """The size of one, about, in bytes."""
        return parameters * len(self.lengths) * (4 if self.precision == "fp32" else 2)


@dataclass(frozen=True)
class TrainingSettings(Checked):
    """How a model is trained. Steps are updates of the weights."""

    steps: int = option(10_000, help="updates of the weights", low=1)
    batch_size: int = option(128, help="samples an update", low=1)
    lr: float = option(1e-3, help="peak learning rate", low=0.0, high=10.0)
    warmup: int = option(100, help="over what the learning rate rises from 0, in counted_in", low=0)
    decay: LearningRate = option(
        CosineRate(), help="how it goes on after that: see `unnoise list rates`", one_of=learning_rates
    )
    counted_in: Literal["steps", "images"] = option(
        "steps", help="what lengths of the learning rate's law are; in images they fit any batch size"
    )
    optimizer: Optimizer = option(
        AdamWOptimizer(), help="how a gradient becomes a step: see `unnoise list optimizers`", one_of=optimizers
    )
    betas: tuple[float, float] = option(
        (0.9, 0.99), help="memory of the moving averages of the gradient and of its square", low=0.0, high=0.999999
    )
    weight_decay: float = option(0.0, help="weight decay, as a share of the learning rate", low=0.0, high=1.0)
    weight_decay_on: Literal["all", "matrices"] = option(
        "all", help="which weights decay; matrices spares biases and the scales of normalisations"
    )
    clip: float = option(1.0, help="largest norm of the gradient; 0 for no limit", low=0.0)
    ema: tuple[Average, ...] = option(
        (ExponentialAverage(0.999),),
        help="moving averages of the weights: a memory such as 0.999, or [0.999, power-0.1]; see `unnoise list averages`",
        one_of=SeveralAverages("average"),
    )
    model_average: str = option("", help="which of them is the model that samples, such as power-0.1; empty: the first")
    snapshots: SnapshotSettings = option(
        SnapshotSettings(), help="averages stored on the way, to choose a length when the run is over"
    )
    validation_share: float = option(
        0.0, help="share of the data held out; with 0 validation uses the training data", low=0.0, high=0.9
    )
    validation_size: int = option(1024, help="fixed (sample, time, noise) triples of the validation loss", low=16)
    validate_every: int = option(500, help="steps between validations", low=1)
    sample_every: int = option(2000, help="steps between grids of samples; 0 for none", low=0)
    checkpoint_every: int = option(1000, help="steps between checkpoints, which is what kill -9 may lose", low=1)
    log_every: int = option(50, help="steps between lines of metrics.jsonl", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [average.name for average in self.ema]
        if self.model_average not in ("", *names):
            raise BadOption(f"model_average: {UnknownName('average of this run', self.model_average, names)}")

    def learning_rate(self, step: int) -> float:
        """The learning rate of an update, the first being step 0."""
        unit = self.batch_size if self.counted_in == "images" else 1
        return self.lr * self.decay.at(Progress(step * unit, self.warmup, self.steps * unit), unit)

    def rate(self, learning_rate: float) -> Rate:
        """What the optimizer is told beside the gradient."""
        return Rate(learning_rate, self.betas, self.weight_decay, self.weight_decay_on == "matrices")

    @property
    def averages(self) -> dict[str, Average]:
        """All averages that a run keeps, by name, the model that samples first."""
        found = {average.name: average for average in (*self.ema, *self.snapshots.averages())}
        first = self.model_average or self.ema[0].name
        return {first: found.pop(first), **found}
