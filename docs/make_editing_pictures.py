"""Makes the picture of docs/editing.md from the digits of `unnoise demo`.

unnoise demo && python docs/make_editing_pictures.py
"""

from pathlib import Path

import torch

from unnoise import load
from unnoise.data.base import datasets
from unnoise.pictures.grid import image_grid

HERE = Path(__file__).parent
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 1.0)
LABEL = "3"


def main() -> None:
    """Writes docs/pictures/editing.png: what is given, one row each, asked to be a 3 with more and more strength."""
    model, data = load(HERE.parent / "demo" / "runs" / "digits"), datasets.build("digits").load()
    given = torch.stack([data.x[data.labels == label][0] for label in (5, 9, 1)])
    columns = [
        model.sample(len(given), image=given, strength=strength, label=LABEL, guidance=2.0, seed=1).tensor
        for strength in STRENGTHS
    ]
    cells = torch.stack(columns, 1).flatten(0, 1)
    captions = [f"strength {strength:g}" for strength in STRENGTHS] * len(given)
    sheet = image_grid(cells, columns=len(STRENGTHS), scale=10, captions=captions)
    sheet.quantize(64).save(HERE / "pictures" / "editing.png", optimize=True)


if __name__ == "__main__":
    main()
