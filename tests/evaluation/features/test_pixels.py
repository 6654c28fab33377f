import pytest
import torch
from PIL import Image

from unnoise.data.base import Dataset, Spec
from unnoise.errors import BadOption, ShapeError
from unnoise.evaluation.features.base import extractors
from unnoise.evaluation.features.pixels import PixelFeatures


def test_pictures_become_rows_from_minus_one_to_one(random_data):
    x = torch.tensor([0, 255, 51, 204], dtype=torch.uint8).reshape(1, 1, 2, 2)
    extractor = PixelFeatures().prepare(Dataset(x, Spec("image", (1, 2, 2))))
    torch.testing.assert_close(extractor(x), torch.tensor([[-1.0, 1.0, -0.6, 0.6]]))
    assert (extractor.dim, extractor.resize, extractor.classify(extractor(x))) == (4, "none", None)


def test_points_are_standardised_column_by_column_and_arrays_as_a_whole(random_data):
    points = random_data("points", (3,), 500)
    points.x.mul_(torch.tensor([1.0, 1000.0, 0.01])).add_(5)
    rows = PixelFeatures().prepare(points)(points.x).double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(3).double(), rtol=0, atol=1e-4)
    rows = PixelFeatures(scale="all").prepare(points)(points.x)
    torch.testing.assert_close(rows, (points.x - points.x.mean()) / points.x.std(correction=0), rtol=1e-4, atol=1e-5)
    arrays = random_data("array", (2, 7), 100)
    rows = PixelFeatures().prepare(arrays)(arrays.x)
    torch.testing.assert_close(rows, ((arrays.x - arrays.x.mean()) / arrays.x.std(correction=0)).flatten(1))


def test_a_column_that_never_changes_stays_zero():
    x = torch.stack([torch.full((20,), 7.0), torch.arange(20.0)], dim=1)
    rows = PixelFeatures().prepare(Dataset(x, Spec("points", (2,))))(x)
    assert bool((rows[:, 0] == 0).all())


def test_a_size_brings_pictures_to_a_square_as_pillow_does(random_data):
    data = random_data("image", (3, 20, 14), 2)
    extractor = PixelFeatures(size=8).prepare(data)
    rows = (extractor(data.x).reshape(2, 3, 8, 8) + 1) * 127.5
    assert (extractor.dim, extractor.resize) == (192, "bicubic to 8 x 8")
    for row, picture in zip(rows, data.x, strict=True):
        pillow = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BICUBIC)
        pillow = torch.frombuffer(bytearray(pillow.tobytes()), dtype=torch.uint8).reshape(8, 8, 3).permute(2, 0, 1)
        assert float((row - pillow).abs().max()) <= 1.0  # Pillow rounds after each axis
    with pytest.raises(BadOption, match="only pictures"):
        PixelFeatures(size=8).prepare(random_data("points", (2,)))


def test_the_hash_tells_apart_what_gives_other_numbers(random_data):
    pictures, points = random_data("image", (1, 8, 8)), random_data("points", (2,))
    others = random_data("points", (2,), seed=1)
    hashes = [
        source.prepare(data).hash
        for source, data in (
            (PixelFeatures(), pictures),
            (PixelFeatures(size=4), pictures),
            (PixelFeatures(), points),
            (PixelFeatures(scale="all"), points),
            (PixelFeatures(), others),
        )
    ]
    assert len(set(hashes)) == 5
    assert PixelFeatures().prepare(random_data("image", (1, 8, 8), seed=3)).hash == hashes[0]


def test_other_samples_than_those_of_the_data_are_refused(random_data):
    extractor = extractors.build("pixels").prepare(random_data("image", (1, 8, 8)))
    with pytest.raises(ShapeError, match=r"expected samples of shape \(1, 8, 8\).*got \(3, 8, 8\)"):
        extractor(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="uint8"):
        extractor(torch.zeros(2, 1, 8, 8))
