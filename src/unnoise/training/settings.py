"""The settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..options import Checked, option


@dataclass(frozen=True)
class TrainingSettings(Checked):
    """How a model is trained. Steps are updates of the weights."""

    steps: int = option(10_000, help="updates of the weights", low=1)
    batch_size: int = option(128, help="samples an update", low=1)
    lr: float = option(1e-3, help="peak learning rate", low=0.0, high=10.0)
    warmup: int = option(100, help="steps over which the learning rate rises from 0", low=0)
    decay: Literal["constant", "linear", "cosine"] = option(
        "cosine", help="how it falls after that: constant, linear or cosine to 0"
    )
    betas: tuple[float, float] = option(
        (0.9, 0.99), help="memory of AdamW's two moving averages", low=0.0, high=0.999999
    )
    weight_decay: float = option(0.0, help="AdamW's weight decay", low=0.0, high=1.0)
    clip: float = option(1.0, help="largest norm of the gradient; 0 for no limit", low=0.0)
    ema: float = option(
        0.999,
        help="memory of the moving average of the weights, which is the model that samples",
        low=0.0,
        high=0.999999,
    )
    validation_share: float = option(
        0.0, help="share of the data held out; with 0 validation uses the training data", low=0.0, high=0.9
    )
    validation_size: int = option(1024, help="fixed (sample, time, noise) triples of the validation loss", low=16)
    validate_every: int = option(500, help="steps between validations", low=1)
    sample_every: int = option(2000, help="steps between grids of samples; 0 for none", low=0)
    checkpoint_every: int = option(1000, help="steps between checkpoints, which is what kill -9 may lose", low=1)
    log_every: int = option(50, help="steps between lines of metrics.jsonl", low=1)

    def learning_rate(self, step: int) -> float:
        """The learning rate of an update, the first being step 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        if self.decay == "constant":
            return self.lr
        return self.lr * (1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2)

    def ema_memory(self, step: int) -> float:
        """The memory of the moving average after an update: short at first, so that the start is forgotten."""
        return min(self.ema, (1 + step) / (10 + step))
