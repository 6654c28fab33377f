"""Ratios of signal to noise and likeness of structure, beside torchmetrics; distances between features, beside the formula."""

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from unnoise.data.base import Dataset, Spec
from unnoise.errors import IncompatibleParts, ShapeError
from unnoise.evaluation.features.own import OwnFeatures
from unnoise.evaluation.features.pixels import PixelFeatures
from unnoise.evaluation.perceptual import PerceptualDistance
from unnoise.evaluation.reconstruction import psnr, ssim


def pictures(n=3, channels=3, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(n, channels, 5, 5, generator=generator), size, mode="bicubic")
    return (255 * smooth).clamp(0, 255).round()


def noisy(x, by=12.0):
    return (x + by * torch.randn(x.shape, generator=torch.Generator().manual_seed(9))).clamp(0, 255).round()


@pytest.mark.parametrize("channels", [1, 3])
def test_both_are_those_of_torchmetrics(channels):
    real = pictures(channels=channels)
    made = noisy(real)
    for i in range(len(real)):
        pair = made[i : i + 1].double(), real[i : i + 1].double()
        assert float(psnr(*pair)) == pytest.approx(float(peak_signal_noise_ratio(*pair, data_range=255.0)), rel=1e-6)
        # They average over the borders too, where the window sees mirrored pixels.
        _, everywhere = structural_similarity_index_measure(*pair, data_range=255.0, return_full_image=True)
        assert float(ssim(*pair)) == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), rel=1e-5)
    assert psnr(made, real).shape == ssim(made, real).shape == (3,)


def test_what_is_equal_is_as_like_as_can_be():
    real = pictures()
    torch.testing.assert_close(ssim(real, real), torch.ones(3, dtype=torch.float64))
    assert torch.isinf(psnr(real, real)).all()
    assert ssim(real[..., :6, :6], real[..., :6, :6]).shape == (3,)  # smaller than the window
    assert float(psnr(real, real + 1)[0]) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ShapeError, match="two batches of one shape"):
        psnr(real, real[:1])
    with pytest.raises(ShapeError, match="expected pictures of shape"):
        ssim(real[0], real[0])


@pytest.fixture(scope="module")
def extractor():
    x = pictures(64, size=8).to(torch.uint8)
    return OwnFeatures(shown=64).prepare(Dataset(x, Spec("image", (3, 8, 8), ("a", "b")), torch.arange(64) % 2))


def test_the_distance_between_features_is_what_the_formula_says(extractor):
    real = pictures(size=8)
    made = noisy(real).requires_grad_()
    found = PerceptualDistance(extractor)(made, real)
    network, expected = extractor.network, []
    for a, b in zip(network.maps(made), network.maps(real), strict=True):
        a, b = (torch.nn.functional.normalize(each, dim=1) for each in (a, b))
        expected.append((a - b).square().sum(1).mean((1, 2)))
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=1e-3, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(made.grad).all()
    assert made.grad.abs().max() > 0


def test_the_distance_rises_with_noise_and_is_0_between_equals(extractor):
    real = pictures(size=8)
    distance = PerceptualDistance(extractor)
    rising = [float(distance(noisy(real, by), real).mean()) for by in (0.0, 8.0, 32.0)]
    assert rising[0] == pytest.approx(0, abs=1e-6)
    assert rising[1] < rising[2] < 4
    assert distance.on(torch.device("cpu")).extractor.network is not extractor.network


def test_what_has_no_layers_is_told():
    x = pictures(8, size=8).to(torch.uint8)
    pixels = PixelFeatures().prepare(Dataset(x, Spec("image", (3, 8, 8))))
    with pytest.raises(IncompatibleParts, match=r"'pixels' has no layers that say something of places: take `own`"):
        PerceptualDistance(pixels)(x.float(), x.float())
