"""Measures the table of docs/objectives.md: one small problem, learned with every loss.

python docs/make_objectives_table.py        (about two minutes on one core)
"""

import tempfile
from pathlib import Path

import torch

import unnoise
from unnoise.evaluation.distances import energy_distance

SEEDS = (0, 1, 2)
RECIPE = {
    "data": {"name": "eight_gaussians"},
    "process": {"name": "flow"},
    "denoiser": {"name": "velocity"},
    "network": {"name": "mlp", "width": 64, "depth": 2},
    "training": {
        "steps": 1500, "batch_size": 256, "lr": 2e-3, "ema": 0.995,
        "validate_every": 1500, "sample_every": 0, "checkpoint_every": 1500, "validation_size": 4096,
    },
}  # fmt: skip
LOSSES = {
    "plain": {},
    "times logit_normal": {"objective__times": "logit_normal"},
    "times adaptive": {"objective__times": "adaptive"},
    "weighting snr": {"objective__weighting": "snr"},
    "weighting min_snr": {"objective__weighting": "min_snr"},
    "weighting edm": {"objective__weighting": "edm"},
    "weighting sigmoid": {"objective__weighting": "sigmoid"},
    "uncertainty": {"objective__uncertainty": True},
    "perturbation 0.1": {"objective__noise__perturbation": 0.1},
    "pairing 128": {"objective__noise__pairing": 128},
    "self-conditioning": {"denoiser__self_conditioning": True},
}


def distances(options: dict, seed: int, folder: Path) -> list[float]:
    """The energy distances of samples in 4 and in 50 steps to the data that was learned."""
    model = unnoise.train(RECIPE, folder, progress=False, seed=seed, **options)
    data = unnoise.data.base.datasets.build("eight_gaussians").load().x
    found = []
    for steps in (4, 50):
        samples = model.sample(4000, sampler="euler", steps=steps, seed=seed + 100).tensor
        found.append(energy_distance(samples, data))
    return found


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    print("| loss | 4 steps | 50 steps |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in LOSSES.items():
            rows = [distances(options, seed, Path(folder) / f"{name} {seed}") for seed in SEEDS]
            cells = [
                f"{1e3 * sum(c) / len(c):.1f} ({1e3 * min(c):.1f} to {1e3 * max(c):.1f})"
                for c in zip(*rows, strict=True)
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
