"""What contenders of the training benchmark have in common: what peers are given, and unnoise's own run as one of them.

A variant says what a peer gets beyond what it ships with: bf16 arithmetic by autocast where the hardware has it, a fused
optimizer and an allocator that keeps freed memory; and the same with its weights in channels-last order. What is not installed
raises ImportError and is named.
"""

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from unnoise.objectives.mse import preconditioned
from unnoise.precision import keep_freed_memory, multiplies_bf16
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Stepped

BF16 = multiplies_bf16(torch.device("cpu"))
"""Whether bf16 is a gift: where the hardware does not multiply it, a convolution in it takes thirty times as long."""
SHIPPED, GIVEN = "as shipped", "given bf16" if BF16 else "given fp32"
LAST = f"{GIVEN}, channels last"
NEVER = 10**9


class NotBuilt(Exception):
    """unnoise itself has no such part."""


class Work(NamedTuple):
    """One way to train, or to ask, one network.

    Args:
        network: Whose arithmetic is counted.
        inputs: Of one sample, for one call of it.
        steps: Every `next` makes one update, or one call.
        sample: sample(n) of what was learned, where that is asked for.
        calls: How often the arithmetic of a call of one sample stands in a step; training takes three times a forward pass.
    """

    network: nn.Module | None
    inputs: tuple[Any, ...]
    steps: Iterator[None]
    sample: Callable[[int], torch.Tensor] | None = None
    calls: float = 0.0


class Contender(NamedTuple):
    """Somebody's network and loop.

    Args:
        name: Whose.
        variants: What it is measured with.
        make: make(variant, batch) -> Work.
    """

    name: str
    variants: tuple[str, ...]
    make: Callable[[str, int], Work]


def mend_torchvision():
    """Lets torchvision be imported where its operators do not fit this build of torch; none of them is ever called here."""
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # they are there
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def lucidrains():
    """denoising_diffusion_pytorch."""
    return importlib.import_module("denoising_diffusion_pytorch")


def smalldiffusion():
    """smalldiffusion, whose package imports torchvision for its data sets."""
    return importlib.import_module("smalldiffusion")


def azula(name):
    """One module of azula."""
    return importlib.import_module(f"azula.{name}")


def diffusers():
    """diffusers, without its warnings."""
    library = importlib.import_module("diffusers")
    library.utils.logging.set_verbosity_error()
    return library


def given(variant, network):
    """Gives a peer what its variant says, and returns whether its optimizer is fused, and the context of its forward pass."""
    if variant == SHIPPED:
        return False, contextlib.nullcontext
    keep_freed_memory()
    if variant == LAST:
        network.to(memory_format=torch.channels_last)
    return True, lambda: torch.autocast("cpu", torch.bfloat16, enabled=BF16)


def loop(loss_of, optimizer, context, clip=None, after=None):
    """What a training script is: one update a call.

    Args:
        loss_of: The loss of a new batch.
        optimizer: Of the weights.
        context: Of the forward pass.
        clip: Largest norm of the gradient.
        after: Called after each update.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    while True:
        with context():
            loss = loss_of()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        optimizer.zero_grad()
        if after is not None:
            after()
        yield


def draw(data, batch, variant=SHIPPED):
    """A random batch of samples in memory."""
    x = data[torch.randint(0, len(data), (batch,))]
    return x.contiguous(memory_format=torch.channels_last) if variant == LAST else x


def our_run(data, network, batch, **sections):
    """unnoise's own run of a recipe, as `unnoise train` makes it: a generator of steps, and the run.

    Args:
        data: Samples, or the name of a shipped data set.
        network: Its spec.
        batch: Samples an update.
        sections: More of the recipe.
    """
    folder = tempfile.TemporaryDirectory()
    if isinstance(data, str):
        source = {"name": data}
    else:
        np.save(f"{folder.name}/data.npy", data.numpy())
        source = {"name": "array", "path": f"{folder.name}/data.npy"}
    quiet = {"validate_every": NEVER, "sample_every": 0, "checkpoint_every": NEVER, "validation_size": 16}
    training = {"steps": NEVER, "batch_size": batch, "lr": 2e-4, **quiet, **sections.pop("training", {})}
    recipe = {"data": source, "network": network, "training": training, **sections}
    run = Run(load_recipe(recipe), f"{folder.name}/run")

    def steps():
        for event in run.events():
            if isinstance(event, Stepped):
                yield
        folder.cleanup()

    return steps(), run


def our_network(run):
    """The network that a run trains."""
    return preconditioned(run.trainee.denoiser).network
