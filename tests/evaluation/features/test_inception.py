import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.evaluation.features.inception import InceptionFeatures
from unnoise.evaluation.features.inception_network import BlockE, InceptionV3, mean_of_neighbours
from unnoise.evaluation.perceptual import PerceptualDistance

NAME = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def weights():
    """Random weights in the layout of the published file, which has class scores too."""
    torch.manual_seed(0)
    network = InceptionV3()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.1, 0.3)
    kept = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    return {**kept, "fc.weight": torch.randn(1008, 2048), "fc.bias": torch.randn(1008)}


@pytest.fixture
def file(weights, tmp_path):
    torch.save(weights, tmp_path / NAME)
    return tmp_path / NAME


@pytest.fixture
def pictures(random_data):
    return random_data("image", (3, 32, 32), 3)


def test_the_layout_is_that_of_the_published_weights():
    network = InceptionV3()
    # torchvision's InceptionV3 has 27,161,264 parameters, of which 3,326,696 read labels off a layer in the middle, and
    # 2,049,000 give the scores of 1,000 classes.
    assert sum(p.numel() for p in network.parameters()) == 27_161_264 - 3_326_696 - 2_049_000
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Conv2d_4a_3x3.bn.running_var"] == (192,)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_5d.branch_pool.conv.weight"] == (64, 288, 1, 1)
    assert shapes["Mixed_6a.branch3x3dbl_3.conv.weight"] == (96, 96, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_6e.branch7x7_2.conv.weight"] == (192, 192, 1, 7)
    assert shapes["Mixed_7a.branch7x7x3_4.conv.weight"] == (192, 192, 3, 3)
    assert shapes["Mixed_7b.branch3x3_2a.conv.weight"] == (384, 384, 1, 3)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)


def test_sizes_are_those_of_the_paper():
    network, sizes = InceptionV3().eval(), {}
    for name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"):
        getattr(network, name).register_forward_hook(lambda _m, _i, out, name=name: sizes.update({name: out.shape[1:]}))
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 299, 299)).shape == (1, 2048)
    assert [tuple(size) for size in sizes.values()] == [
        (64, 147, 147),
        (192, 71, 71),
        (288, 35, 35),
        (768, 17, 17),
        (2048, 8, 8),
    ]


def test_the_mean_of_neighbours_does_not_count_what_is_outside():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = mean_of_neighbours(x)[0, 0]
    assert float(found[0, 0]) == (0 + 1 + 3 + 4) / 4
    assert float(found[0, 1]) == (0 + 1 + 2 + 3 + 4 + 5) / 6
    assert float(found[1, 1]) == 4


@pytest.mark.parametrize(("largest", "answer"), [(True, 5.0), (False, 2.0)])
def test_the_last_block_takes_the_largest_neighbour(largest, answer):
    block = BlockE(1, largest).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
    torch.nn.init.ones_(block.branch_pool.conv.weight)
    x = torch.tensor([[[[1.0, 5.0], [2.0, 0.0]]]])
    with torch.no_grad():
        pooled = block(x)[:, -1, 0, 0] * (1 + 0.001) ** 0.5
    assert float(pooled) == pytest.approx(answer)


def test_what_enters_is_resized_as_tensorflow_did_and_less_128_over_128(file, pictures):
    extractor = InceptionFeatures(path=str(file)).prepare(pictures)
    plain = torch.nn.Identity()
    extractor.network = plain
    x = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    x[0, 0, :, 1] = 255
    seen = extractor._look(x)
    assert seen.shape == (1, 3, 299, 299)
    assert float(seen[0, 2, 7, 0]) == -1
    assert float(seen[0, 0, 7, 1]) == pytest.approx((255 * 2 / 299 - 128) / 128, abs=1e-5)
    assert float(seen[0, 1, 298, 298]) == pytest.approx(127 / 128)


def test_features_come_from_the_file_whatever_stands_beside_a_sample(file, weights, pictures, tmp_path):
    extractor = InceptionFeatures(path=str(file)).prepare(pictures)
    features = extractor(pictures.x)
    assert features.shape == (3, extractor.dim) == (3, 2048)
    assert features.dtype == torch.float32
    torch.testing.assert_close(extractor(pictures.x[1:2])[0], features[1], rtol=1e-5, atol=1e-6)
    assert float(features.std(0).mean()) > 0
    save_file(weights, tmp_path / "same.safetensors")
    again = InceptionFeatures(path=str(tmp_path / "same.safetensors")).prepare(pictures)
    assert again.hash == extractor.hash
    clean = InceptionFeatures(path=str(file), resize="clean").prepare(pictures)
    assert clean.hash != extractor.hash
    assert (clean.resize, extractor.resize) == ("Pillow bicubic to 299 x 299", "TensorFlow 1 bilinear to 299 x 299")
    changed = {**weights, "Mixed_7c.branch_pool.bn.bias": torch.ones(192)}
    torch.save(changed, tmp_path / "other.pth")
    assert InceptionFeatures(path=str(tmp_path / "other.pth")).prepare(pictures).hash != extractor.hash


def by_hand(weights, name, x, **options):
    """A convolution of the published weights, normalised by its running statistics."""
    x = functional.conv2d(x, weights[f"{name}.conv.weight"], **options)
    mean, var, scale, shift = (
        weights[f"{name}.bn.{each}"] for each in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, var, scale, shift, eps=0.001).relu()


def test_what_it_says_of_places_is_what_stands_before_its_pools(file, weights, pictures):
    extractor = InceptionFeatures(path=str(file)).prepare(pictures)
    network, x = extractor.network, pictures.x[:1]
    with torch.no_grad():
        found = extractor.maps(x.float())
        first = by_hand(weights, "Conv2d_1a_3x3", extractor._seen(x), stride=2)
        first = by_hand(weights, "Conv2d_2b_3x3", by_hand(weights, "Conv2d_2a_3x3", first), padding=1)
        second = by_hand(weights, "Conv2d_3b_1x1", functional.max_pool2d(first, 3, 2))
        second = by_hand(weights, "Conv2d_4a_3x3", second)
        expected, rest = [first, second], functional.max_pool2d(second, 3, 2)
        for blocks in (("5b", "5c", "5d"), ("6a", "6b", "6c", "6d", "6e"), ("7a", "7b", "7c")):
            for block in blocks:
                rest = getattr(network, f"Mixed_{block}")(rest)
            expected.append(rest)
    assert [each.shape[1] for each in found] == [64, 192, 288, 768, 2048]
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[-1].mean((2, 3)), extractor(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_perceptual_distance_by_it_has_a_gradient_everywhere(file, random_data, channels):
    data = random_data("image", (channels, 16, 16), 1)
    distance = PerceptualDistance(InceptionFeatures(path=str(file)).prepare(data))
    real = data.x.float()
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    made = (real + 3 * noise).clamp(0, 255).requires_grad_()
    found = distance(made, real)
    found.sum().backward()
    assert (made.grad != 0).double().mean() > 0.95  # a transparent pixel may be white already
    assert 0 < float(found.detach()) < float(distance((real + 60 * noise).clamp(0, 255), real))


@pytest.mark.parametrize("place", ["unnoise", "torch"])
def test_weights_are_found_where_people_have_them(weights, pictures, cache_dir, tmp_path, monkeypatch, place):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = cache_dir / "weights" if place == "unnoise" else tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(weights, folder / NAME)
    assert InceptionFeatures().prepare(pictures).about["weights"] == NAME


def test_a_missing_file_says_where_to_put_which(pictures, cache_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        InceptionFeatures().prepare(pictures)
    assert str(cache_dir / "weights" / NAME) in str(caught.value)
    assert "downloads nothing" in str(caught.value)
    with pytest.raises(DataError, match=r"put it at .*nowhere\.pth"):
        InceptionFeatures(path=str(tmp_path / "nowhere.pth")).prepare(pictures)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": Evil()}, "could run code"),
        ([1, 2], "no table of tensors"),
        ({"conv.weight": torch.zeros(1)}, "has no weight 'Conv2d_1a_3x3.conv.weight': it is of another network"),
        ({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, r"shape \(1,\) and not \(32, 3, 3, 3\)"),
        (None, "no whole file of weights"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(pictures, tmp_path, capsys, content, said):
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    if content is None:
        file.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=said) as caught:
        InceptionFeatures(path=str(file)).prepare(pictures)
    assert str(file) in str(caught.value)
    assert "run" not in capsys.readouterr().out


def test_what_is_no_picture_is_refused(file, pictures, random_data):
    for kind, shape in (("points", (2,)), ("array", (3, 8, 8)), ("image", (2, 8, 8))):
        data = random_data(kind, shape)
        assert not InceptionFeatures().suits(data.spec)
        with pytest.raises(DataError, match="inception looks at pictures"):
            InceptionFeatures(path=str(file)).prepare(data)
    extractor = InceptionFeatures(path=str(file)).prepare(pictures)
    assert InceptionFeatures().suits(pictures.spec)
    for x in (
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1, 2, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, dtype=torch.uint8),
    ):
        with pytest.raises(ShapeError):
            extractor(x)


def test_a_device_that_is_not_there_is_named(file, pictures):
    with pytest.raises(BadOption, match="device: 'abacus' cannot be used"):
        InceptionFeatures(path=str(file), device="abacus").prepare(pictures)
