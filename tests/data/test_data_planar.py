"""The toy data sets lie where their mathematics says."""

import numpy as np
import pytest
import torch

from unnoise.data.checkerboard import CheckerboardDataset
from unnoise.data.circles import CirclesDataset
from unnoise.data.eight_gaussians import EightGaussiansDataset
from unnoise.data.moons import MoonsDataset
from unnoise.data.spiral import SpiralDataset
from unnoise.data.swiss_roll import SwissRollDataset
from unnoise.data.three_shapes import ThreeShapesDataset


def polar(x):
    return x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])


def test_the_spiral_has_300_points_around_its_curve_with_jitter_of_a_twentieth():
    x = SpiralDataset().load().x.double().numpy()
    theta = np.linspace(0, 4 * np.pi, 300)
    radius = theta / (4 * np.pi) * 2
    jitter = x - np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)
    assert x.shape == (300, 2)
    assert np.abs(jitter).max() < 5 * 0.05
    # 600 draws: the standard deviation is known to 3 %, the mean to 0.002
    assert jitter.std() == pytest.approx(0.05, rel=0.12)
    assert abs(jitter.mean()) < 0.008


def test_the_spiral_without_jitter_grows_in_proportion_to_its_angle():
    radius, theta = polar(SpiralDataset(noise=0.0).load().x)
    torch.testing.assert_close(radius, torch.linspace(0, 2, 300), atol=1e-6, rtol=0)
    turned = (theta - 2 * torch.pi * radius) / (2 * torch.pi)
    torch.testing.assert_close(turned, turned.round(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("inner", [0.5, 0.25])
def test_every_point_of_the_circles_lies_at_the_radius_of_its_label(inner):
    data = CirclesDataset(noise=0.0, inner=inner).load()
    assert data.spec.class_names == ("outer", "inner")
    torch.testing.assert_close(polar(data.x)[0], torch.tensor([1.0, inner])[data.labels])


def test_the_moons_are_half_circles_around_their_centres():
    data = MoonsDataset(noise=0.0).load()
    assert data.spec.class_names == ("upper", "lower")
    upper, lower = data.x[data.labels == 0], data.x[data.labels == 1]
    torch.testing.assert_close(polar(upper)[0], torch.ones(1000))
    torch.testing.assert_close(polar(lower - torch.tensor([1.0, 0.5]))[0], torch.ones(1000))
    assert (upper[:, 1] >= 0).all()
    assert (lower[:, 1] <= 0.5).all()


def test_every_point_of_the_checkerboard_lies_on_the_black_square_of_its_label():
    data = CheckerboardDataset().load()
    column, row = ((data.x + 1) * 2).long().unbind(1)
    assert ((column + row) % 2 == 0).all()
    assert ((data.x >= -1) & (data.x <= 1)).all()
    squares = set(zip(data.labels.tolist(), column.tolist(), row.tolist(), strict=True))
    assert len(squares) == 8
    assert {label for label, _, _ in squares} == set(range(8))
    assert data.labels.bincount().tolist() == [250] * 8


def test_the_swiss_roll_without_jitter_is_a_spiral_away_from_the_middle():
    radius, theta = polar(SwissRollDataset(noise=0.0).load().x.double())
    assert 2 / 3 <= radius.min() < 0.67
    assert 1.99 < radius.max() <= 2 + 1e-6
    turned = (radius * 4.5 * torch.pi / 2 - theta) / (2 * torch.pi)
    torch.testing.assert_close(turned, turned.round(), atol=1e-5, rtol=0)


def test_the_eight_gaussians_stand_on_a_ring_in_the_order_of_their_labels():
    data = EightGaussiansDataset(num_points=16000).load()
    for label in range(8):
        mine = data.x[data.labels == label].double()
        angle = torch.tensor(label * torch.pi / 4).double()
        centre = 2 * torch.stack([angle.cos(), angle.sin()])
        # of 2000 points the mean is known to 0.2 / 45, the standard deviation to 1.6 %
        torch.testing.assert_close(mine.mean(0), centre, atol=0.02, rtol=0)
        torch.testing.assert_close(mine.std(0), torch.full((2,), 0.2).double(), atol=0.015, rtol=0)


def test_each_of_the_three_shapes_is_the_one_that_its_label_names():
    data = ThreeShapesDataset(num_points=3001, noise=0.0).load()
    assert data.spec.class_names == ("spiral", "circles", "moons")
    spiral, circles, moons = (data.x[data.labels == label] for label in range(3))
    torch.testing.assert_close(polar(spiral)[0], torch.linspace(0, 2, 1001), atol=1e-6, rtol=0)
    radii = polar(circles)[0]
    torch.testing.assert_close(radii, radii.round())
    assert set(radii.round().tolist()) == {1.0, 2.0}
    upper = moons * 0.75 + torch.tensor([0.5, 0.25])
    off = torch.minimum((polar(upper)[0] - 1).abs(), (polar(upper - torch.tensor([1.0, 0.5]))[0] - 1).abs())
    assert off.max() < 1e-6


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_jitter_moves_points_by_its_standard_deviation(noise):
    clean = CirclesDataset(num_points=10000, noise=0.0).load().x
    moved = CirclesDataset(num_points=10000, noise=noise).load().x - clean
    assert float(moved.std()) == pytest.approx(noise, rel=0.03)


def test_one_point_is_enough():
    assert ThreeShapesDataset(num_points=1).load().x.shape == (1, 2)
