"""Boxes and maps as planes: what they measure, what asks for nothing, and how networks see them."""

import numpy as np
import pytest
import torch

from unnoise.conditioning.asking import boxes_text, map_text, read_boxes
from unnoise.conditioning.regions import (
    PLANES,
    RegionConditioning,
    RegionNetwork,
    box_planes,
    map_planes,
    region_network,
)
from unnoise.data.regions import NO_BOX, NOTHING, Regions
from unnoise.errors import BadOption, DataError, ShapeError
from unnoise.nn.base import networks

ASKS = RegionConditioning(("cat", "dog"), ("sky", "sea", "sand"))


def boxes(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_a_cell_holds_the_share_of_it_that_a_box_covers():
    ends = boxes((0.125, 0.25, 0.5, 0.8))
    planes = box_planes(torch.tensor([[1]]), ends, 2, (8, 4))[0]
    assert planes.shape == (4, 8, 4)
    assert not planes[0].any()
    assert float(planes[1].sum()) / 32 == pytest.approx((0.5 - 0.125) * (0.8 - 0.25))
    fine = torch.zeros(800, 800)
    fine[200:640, 100:400] = 1
    expected = torch.nn.functional.avg_pool2d(fine[None, None], (100, 200))[0, 0]
    torch.testing.assert_close(planes[1], expected)
    assert (planes[3] == 1).all()


def test_outlines_keep_boxes_of_one_class_that_meet_apart():
    two = boxes((0, 0, 0.5, 1), (0.5, 0, 1, 1))
    one = boxes((0, 0, 1, 1), (0, 0, 0, 0))
    apart, whole = (
        box_planes(torch.tensor([n]), each, 1, (8, 8))[0] for n, each in (([0, 0], two), ([0, NO_BOX], one))
    )
    assert torch.equal(apart[0], whole[0])
    assert not torch.equal(apart[1], whole[1])
    assert apart[1, 3].tolist() == [1, 0, 0, 1, 1, 0, 0, 1]
    assert whole[1, 3].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]


def test_maps_come_down_by_area_or_by_the_middle_of_a_cell():
    numbers = torch.randint(0, 3, (2, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    numbers[0, 0, 0] = NOTHING
    area = map_planes(numbers, 3, (3, 3), "area")
    for k in range(3):
        cells = (numbers == k).double().reshape(2, 3, 4, 3, 4).mean((2, 4))
        torch.testing.assert_close(area[:, k].double(), cells)
    assert float(area[0, :3, 0, 0].sum()) == pytest.approx(15 / 16)
    nearest = map_planes(numbers, 3, (3, 3), "nearest")
    assert torch.equal(nearest[:, :3].argmax(1), numbers[:, 2::4, 2::4].long())
    assert torch.equal(nearest[:, :3].sum(1), torch.ones(2, 3, 3))


def test_what_asks_for_nothing_differs_from_what_asks_for_no_box():
    regions = Regions(
        torch.full((1, 1, 5), float(NO_BOX)),
        torch.full((1, 4, 4), NOTHING, dtype=torch.uint8),
        ("cat", "dog"),
        ("sky", "sea", "sand"),
    )
    planes = ASKS.encode(regions, (4, 4))
    assert planes.shape == (1, ASKS.planes, 4, 4) == (1, 8, 4, 4)
    assert float(planes.sum()) == 2 * 16  # that both are asked for, and nothing else
    yes, no = torch.tensor([True]), torch.tensor([False])
    assert not ASKS.without(planes, yes, yes).any()
    assert float(ASKS.without(planes, yes, no)[:, :4].sum()) == 0
    assert float(ASKS.without(planes, yes, no)[:, 4:].sum()) == 16


def test_classes_are_known_by_their_names_whatever_their_numbers():
    given = boxes((0, 0.0, 0.0, 0.5, 0.5))
    named = [ASKS.encode(Regions(given, None, names), (2, 2)) for names in (("cat", "dog"), ("dog", "cat"))]
    assert named[0][0, 0, 0, 0] == named[1][0, 1, 0, 0] == 1
    assert named[0][0, 1].sum() == named[1][0, 0].sum() == 0
    with pytest.raises(DataError, match="'cow' is none of the classes that the model knows"):
        ASKS.encode(Regions(given, None, ("cow",)), (2, 2))


def test_a_description_gives_the_same_conditioning_again():
    for asks in (ASKS, RegionConditioning(("a",)), RegionConditioning(None, ("b",), "nearest")):
        assert RegionConditioning.of(asks.describe()) == asks
    assert RegionConditioning.of({"label": ["a"]}) is None


@pytest.mark.parametrize("name", ["unet", "latent_unet", "dit", "mmdit", "mlp"])
def test_any_network_sees_planes_and_nothing_where_none_are_given(name):
    options = {"unet": {"width": 8, "multipliers": [1, 2]}, "latent_unet": {"width": 8, "multipliers": [1, 2], "attention": [1]},
               "dit": {"width": 16, "depth": 1, "heads": 2}, "mmdit": {"width": 16, "depth": 1, "heads": 2}, "mlp": {}}  # fmt: skip
    inner = networks[name]((4 + ASKS.planes, 8, 8), (4, 8, 8), 3, networks.options({"name": name, **options[name]})[1])
    network = ASKS.around(inner).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        x, level = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 500.0])
        bare = network(x, level, {"label": torch.tensor([3, 3])})
        torch.testing.assert_close(bare, network(x, level, network.null_condition(2)))
        planes = network.encode(Regions(boxes((0, 0.1, 0.1, 0.6, 0.9)).expand(2, -1, -1), None, ASKS.boxes))
        told = network(x, level, {PLANES: planes})
        assert float((told - bare).abs().max()) > 1e-3
        seen = inner(torch.cat([x, planes], 1), level)
        torch.testing.assert_close(told, seen)
    assert network.shape == (4, 8, 8)
    assert set(network.condition_keys) == {"label", PLANES}
    assert region_network(network) is network
    assert isinstance(network, RegionNetwork)
    with pytest.raises(ShapeError, match=r"expected planes of shape \(2, 8, 8, 8\), got \(2, 3, 8, 8\)"):
        network(x, level, {PLANES: planes[:, :3]})


def test_boxes_are_read_as_they_are_written():
    text = boxes_text([("big cat", 0.1, 0.2, 0.5, 0.75), ("dog", 0, 0, 1, 1)])
    assert text == "big cat 0.1 0.2 0.5 0.75; dog 0 0 1 1"
    assert read_boxes(text, ("dog", "big cat")) == [("big cat", 0.1, 0.2, 0.5, 0.75), ("dog", 0, 0, 1, 1)]
    assert read_boxes(" ; ", ("dog",)) == []
    assert map_text(map_text(np.eye(3, dtype=np.uint8))) == map_text(np.eye(3, dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dog", "name, left, top, right, bottom in"),
        ("dog 0.1 0.2 0.3", "name, left, top, right, bottom in"),
        ("cow 0 0 1 1", "the model knows no 'cow'"),
        ("dog 0.5 0 0.2 1", "with left below right"),
        ("dog 0 0 1 1.5", "with left below right"),
    ],
)
def test_boxes_that_are_none_are_refused(text, said):
    with pytest.raises(BadOption, match=said):
        read_boxes(text, ("dog",))


def test_what_is_no_map_is_refused(tmp_path):
    from PIL import Image

    with pytest.raises(BadOption, match="expected class numbers of shape"):
        map_text(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(BadOption, match="expected class numbers of shape"):
        map_text(Image.new("RGB", (3, 3)))
    with pytest.raises(BadOption, match="expected class numbers of shape"):
        map_text(np.zeros((0, 3), np.uint8))
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    with pytest.raises(
        DataError, match=r"colour\.png is no label map: expected one class number a pixel .* got mode RGB"
    ):
        map_text(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"there is no label map .*nowhere\.png"):
        map_text(tmp_path / "nowhere.png")
