"""Makes the pictures of docs/shapes.md.

python docs/make_shapes_pictures.py
"""

from pathlib import Path

from PIL import Image, ImageDraw

from unnoise import load
from unnoise.data.scenes.scene import COLOURS, HELD_OUT_PAIRS, SHAPES, Scene, Thing
from unnoise.data.shapes import ShapesDataset, show
from unnoise.pictures import style
from unnoise.pictures.grid import image_grid, to_images
from unnoise.pictures.heatmap import picture_matrix

PICTURES = Path(__file__).parent / "pictures"
TWO = (("a green star", "a blue ring"), ("a red star", "a small cyan cross"), ("a blue ring", "a green star"))


def contact_sheet() -> Image.Image:
    """The first pictures of the training split, with their captions."""
    data = ShapesDataset(number=20).load()
    return image_grid(data.x, columns=5, scale=3, captions=data.texts)


def combinations() -> Image.Image:
    """Every colour of every shape; those that training never shows in a frame."""
    cells = []
    for shape in SHAPES:
        scenes = [Scene((Thing(colour, shape, "large"),)) for colour in COLOURS]
        cells.append([_marked(picture, scene) for picture, scene in zip(to_images(show(scenes)), scenes, strict=True)])
    return picture_matrix(cells, SHAPES, list(COLOURS))


def asked_for() -> Image.Image:
    """What the model that comes with unnoise makes of the same words in other orders."""
    sides = ("left of", "right of", "above", "below")
    prompts = [f"{first} {side} {second}" for first, second in TWO for side in sides]
    made = load().sample(len(prompts), prompt=prompts, seed=1)
    return image_grid(made.tensor, columns=4, scale=3, captions=prompts)


def _marked(picture: Image.Image, scene: Scene) -> Image.Image:
    thing = scene.things[0]
    if (thing.colour, thing.shape) in HELD_OUT_PAIRS:
        ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=style.INK, width=3)
    return picture


def main() -> None:
    """Writes docs/pictures/shapes.png, shapes-asked-for.png and shapes-combinations.png."""
    contact_sheet().save(PICTURES / "shapes.png", optimize=True)
    asked_for().save(PICTURES / "shapes-asked-for.png", optimize=True)
    combinations().save(PICTURES / "shapes-combinations.png", optimize=True)


if __name__ == "__main__":
    main()
