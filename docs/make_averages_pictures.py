"""Measures the figure and the table of optimizers of docs/averages.md on points in the plane.

python docs/make_averages_pictures.py        (some three minutes on one core)
"""

import tempfile
from pathlib import Path

from unnoise.pictures.curves import lines
from unnoise.recipes.averaging import RunAverages
from unnoise.recipes.recipe import load_recipe
from unnoise.recipes.run import Run
from unnoise.training.loop import Validated

PICTURES = Path(__file__).parent / "pictures"
RECIPE = {
    "data": {"name": "moons", "num_points": 4000, "noise": 0.06},
    "process": {"name": "variance_exploding", "sigma_min": 0.01, "sigma_max": 20.0},
    "denoiser": {"name": "edm"},
    "network": {"name": "mlp", "width": 64, "depth": 3},
    "objective": {"name": "mse", "times": {"name": "log_uniform", "low": 0.01, "high": 20.0}},
    "training": {
        "steps": 1500, "batch_size": 128, "lr": 3e-3, "ema": 0.998, "validation_share": 0.25, "validation_size": 16384,
        "validate_every": 1500, "checkpoint_every": 1500, "sample_every": 0,
    },
    "machine": {"precision": "fp32"},
}  # fmt: skip
LENGTHS = (0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25)
LAWS = {"constant": {}, "cosine": {}, "inverse_sqrt": {"training__decay__reference": 200}, "trapezoid": {}}
OPTIMIZERS = {
    "adamw": (1e-3, 3e-3, 1e-2), "muon": (1e-3, 3e-3, 1e-2), "lion": (1e-4, 3e-4, 1e-3), "sgd": (0.03, 0.1, 0.3),
}  # fmt: skip


def train(folder: Path, seed: int = 0, **options: object) -> tuple[Path, float]:
    loss = float("nan")
    for event in Run(load_recipe(RECIPE, seed=seed, **options), folder).events():
        if isinstance(event, Validated):
            loss = event.loss.loss
    return folder, loss


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        curves = {}
        for law, options in LAWS.items():
            kept = {"training__snapshots__every": 25, "training__decay": law, **options}
            folder, loss = train(Path(place) / law, **kept)
            swept = RunAverages(folder).sweep(LENGTHS)
            curves[law] = ([each.length for each in swept], [each.loss for each in swept])
            best = min(swept, key=lambda each: each.loss)
            print(f"{law:<14}exponential {loss:.5f}  best length {best.length:g}: {best.loss:.5f}", flush=True)
        picture = lines(curves, "length of the average, as a share of the run", "validation loss", log_x=True)
        picture.save(PICTURES / "averages.png", optimize=True)
        for name, rates in OPTIMIZERS.items():
            for rate in rates:
                options = {"training__optimizer": name, "training__lr": rate}
                losses = [train(Path(place) / f"{name}-{rate}-{seed}", seed, **options)[1] for seed in (0, 1)]
                print(f"{name:<8}{rate:<8g}{'  '.join(f'{loss:.5f}' for loss in losses)}", flush=True)


if __name__ == "__main__":
    main()
