"""A step on another device takes nothing from the processor on its way, and waits for no number.

The device is torch's "meta", whose tensors have no memory: whoever reads one, or mixes it with one of the processor, fails. Noise
is drawn there, as on a GPU.
"""

import pytest
import torch

from unnoise.recipes.recipe import load_any_recipe
from unnoise.recipes.run import Run
from unnoise.training.batch import accumulated
from unnoise.training.execution import begin_state

THERE = torch.device("meta")
WORDS = {
    "data": {"name": "shapes", "number": 16, "size": 32},
    "conditioning": {
        "text": {"encoder": {"name": "transformer", "vocabulary": 300, "width": 32, "depth": 1, "heads": 4, "length": 24}},
    },
    "process": {"name": "variance_exploding", "sigma_min": 0.002, "sigma_max": 80.0},
    "denoiser": {"name": "edm"},
    "objective": {"name": "mse", "times": {"name": "log_normal"}, "weighting": {"name": "edm"}},
}  # fmt: skip
DIGITS = {"data": {"name": "digits"}}
CASES = {
    "points": {"data": {"name": "moons"}, "network": {"name": "mlp"}},
    "labels": {**DIGITS, "network": {"name": "unet", "width": 16}},
    "ddpm": {**DIGITS, "network": {"name": "ddpm_unet", "width": 32, "multipliers": [1, 2]}},
    "learned variance": {
        **DIGITS, "network": {"name": "unet", "width": 16}, "objective": {"name": "hybrid"}, "process": {"name": "linear"},
        "denoiser": {"name": "noise", "learned_variance": True},
    },
    "words, U-Net": {
        **WORDS,
        "network": {"name": "latent_unet", "width": 16, "multipliers": [1, 2], "attention": [1], "heads": 4, "pooled": 32},
    },
    "words, DiT": {**WORDS, "network": {"name": "dit", "width": 32, "depth": 2, "heads": 2, "patch": 8, "pooled": 32}},
    "words, MMDiT": {**WORDS, "network": {"name": "mmdit", "width": 32, "depth": 2, "heads": 2, "patch": 8}},
}  # fmt: skip


@pytest.mark.parametrize(("case", "optimizer"), [*((case, "adamw") for case in CASES), ("words, U-Net", "muon")])
def test_a_step_is_made_there_alone(tmp_path, case, optimizer):
    training = {
        "steps": 2,
        "batch_size": 4,
        "optimizer": {"name": optimizer},
        "ema": [0.99, "power-0.1"],
        "weight_decay": 0.1,
    }
    run = Run(load_any_recipe({**CASES[case], "training": training}), tmp_path / "run")
    trainee, recipe = run.trainee, run.recipe
    companion = trainee.companion()
    state = begin_state(
        trainee.network, run.work.input_shape, recipe.training, recipe.machine, THERE, companion=companion
    )
    trainee.module.train()
    stream = trainee.examples(state)
    for step in range(2):
        batch = stream.step(step, THERE)
        for name in ("inputs", "noise_level", "target", "weight"):
            assert getattr(batch, name).device == THERE
        assert all(value.device == THERE for value in (batch.cond or {}).values())
        losses, _ = accumulated(trainee.gradient(state), batch, 0)
        norm = state.update()
        assert losses.device == norm.device == THERE
