"""One batch, learned again and again: what a network that cannot do this will not do with all of the data either."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from ...objectives.mse import preconditioned
from ...training.draws import DrawStream
from ...training.execution import begin_state
from ...training.gradient import Gradient
from ...training.optimizers.adamw import AdamWOptimizer
from ...training.rates import ConstantRate
from ...training.threads import step_operations, threads_for
from ..run import Prepared

MOST_STEPS = 200
ENOUGH_STEPS = 50
"""Below so many, a loss that did not fall proves nothing."""
ORDINARY_RATE = 1e-3
_SAMPLES = 16
_WARMUP = 10


@dataclass(frozen=True)
class Trial:
    """How one batch was learned.

    Args:
        losses: Before each update.
        rate: The learning rate.
        dead: Weights whose gradient was exactly 0 at every step, by name.
        broken: Weights whose gradient was not finite at some step, by name.
        with_ordinary_rate: The share of the loss that was left with AdamW at `ORDINARY_RATE`; None where that was not tried.
    """

    losses: tuple[float, ...]
    rate: float
    dead: tuple[str, ...]
    broken: tuple[str, ...]
    with_ordinary_rate: float | None = None

    @property
    def left(self) -> float:
        """The share of the first loss that is left at the end: the middle one of the last five."""
        last = sorted(self.losses[-5:])
        return last[len(last) // 2] / self.losses[0] if self.losses[0] else 1.0


def overfit(prepared: Prepared, seconds: float, most: int = MOST_STEPS) -> Trial:
    """Learns one batch of at most 16 samples, with fixed times and noise, at the recipe's own learning rate.

    Where that fails, it is tried again with an ordinary optimizer and rate, to tell a bad rate from a bad network.

    Args:
        prepared: A recipe with its data; nothing of it is changed.
        seconds: For each of the two, about.
        most: Steps.

    Raises:
        BadOption: The batch does not fit in memory.
    """
    found = _learn(prepared, seconds, most)
    if found.broken or len(found.losses) < ENOUGH_STEPS or found.left < 0.9 or prepared.start is not None:
        return found
    plain = replace(prepared.recipe.training, optimizer=AdamWOptimizer(), lr=ORDINARY_RATE)
    other = _learn(replace(prepared, recipe=replace(prepared.recipe, training=plain)), seconds, most)
    return replace(found, with_ordinary_rate=other.left)


def _learn(prepared: Prepared, seconds: float, most: int) -> Trial:
    recipe, blueprint = prepared.recipe, prepared.blueprint
    size = min(recipe.training.batch_size, _SAMPLES, len(prepared.train))
    settings = replace(
        recipe.training, batch_size=size, steps=most, warmup=_WARMUP, decay=ConstantRate(), counted_in="steps"
    )
    device = recipe.machine.torch_device()
    denoiser = blueprint.build(recipe.seed)
    network = preconditioned(denoiser).network
    assert network is not None
    if prepared.start is not None:
        prepared.start.begin(network, blueprint, recipe.seed)
    companion = recipe.objective.companion(denoiser.schedule)
    machine = replace(recipe.machine, compile=False)
    state = begin_state(network, blueprint.input_shape, settings, machine, device, companion=companion)
    gradient = Gradient(recipe.objective, denoiser, state, recipe.seed, state.companion)
    stream = DrawStream(prepared.train, blueprint.codec, denoiser, recipe.objective, size, recipe.seed,
                        state.companion.history, captions=prepared.captions)  # fmt: skip
    batch = stream.step(0, device)
    losses: list[float] = []
    alive, broken = [False] * len(state.names), [False] * len(state.names)
    network.train()
    began = time.perf_counter()
    with threads_for(step_operations(network, blueprint.input_shape, size)):
        while len(losses) < most and (len(losses) < 2 or time.perf_counter() - began < seconds):
            losses.append(float(gradient.add(batch, 1 / size).mean()))
            for i, view in enumerate(state.gradients.views):
                largest = view.abs().max()
                alive[i] = alive[i] or bool(largest != 0)
                broken[i] = broken[i] or not bool(torch.isfinite(largest))
            if any(broken):
                break
            state.update()
    return Trial(
        tuple(losses),
        settings.lr,
        tuple(name for name, each in zip(state.names, alive, strict=True) if not each),
        tuple(name for name, each in zip(state.names, broken, strict=True) if each),
    )
