"""Makes the pictures of the documents from the models of `unnoise demo`.

unnoise demo && python docs/make_pictures.py
"""

import math
from pathlib import Path

from PIL import Image

from unnoise import load
from unnoise.data.base import datasets
from unnoise.pictures.grid import image_grid
from unnoise.pictures.points import scatter
from unnoise.pictures.strip import stack, strip
from unnoise.process.base import scales, schedules, time_at
from unnoise.recipes.gallery import forward_strip
from unnoise.recipes.paths import flow_and_sde
from unnoise.recipes.score_field import score_field

HERE = Path(__file__).parent
RUNS = HERE.parent / "demo" / "runs"
STEPS = (0, 9, 12, 14, 16, 20)


def backward(run: Path, n: int, **request) -> Image.Image:
    """The frames of a run of the sampler, as one row."""
    model = load(run)
    frames, captions = [], []
    for preview in model.previews(n, steps=20, **request):
        if preview.step in STEPS:
            # Both models let x grow with the noise; it is drawn at the size of the data.
            sigma, sigma_data = scales(model.blueprint.process, preview.t)[1], model.blueprint.sigma_data
            scale = (sigma**2 + sigma_data**2) ** 0.5 / sigma_data
            x = model.blueprint.codec.decode(preview.z / scale)
            frames.append(_picture(model, x))
            captions.append(f"step {preview.step}")
    return strip(frames, captions)


def _picture(model, x):
    if model.spec.kind == "points":
        return scatter(x.numpy(), size=200, limits=2.7)
    return image_grid(x[:9], columns=3).resize((200, 200), Image.Resampling.NEAREST)


def score_view(run: Path) -> Image.Image:
    """The score of the spiral at three noise levels, and the ways of samples along the ODE and with the SDE."""
    model, data = load(run), datasets.build("spiral").load()
    levels = [time_at(model.denoiser.schedule, -2 * math.log(noise)) for noise in (0.1, 0.35, 1.2)]
    field = score_field(model, levels, size=230, lattice=15, data=data)
    return stack([field, flow_and_sde(model, data, n=4, seed=3, size=352)], ["", "from noise to data, twice"])


def main() -> None:
    """Writes docs/pictures/front.png and docs/pictures/score.png."""
    linear = schedules.build("linear")
    rows = [
        forward_strip(datasets.build("spiral").load(), None, linear),
        backward(RUNS / "spiral", 500, seed=0),
        backward(RUNS / "digits", 9, label=[str(k) for k in range(1, 10)], seed=1, guidance=2.0),
    ]
    titles = [
        "data to noise: nothing to learn",
        "noise to data: the spiral model",
        "noise to data: digits, asked for by label",
    ]
    stack(rows, titles).quantize(128).save(HERE / "pictures" / "front.png", optimize=True)
    score_view(RUNS / "spiral").quantize(96).save(HERE / "pictures" / "score.png", optimize=True)


if __name__ == "__main__":
    main()
