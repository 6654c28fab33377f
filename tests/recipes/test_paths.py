"""The ways of samples along the ODE and with the SDE, under an exact model."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from unnoise.blueprint import Blueprint
from unnoise.cli.draw import draw_app
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.digits import DigitsDataset
from unnoise.data.spiral import SpiralDataset
from unnoise.denoisers.oracle import DatasetOracle
from unnoise.errors import DataError
from unnoise.model import Model
from unnoise.nn.mlp import MLPConfig
from unnoise.nn.unet import UNetConfig
from unnoise.process.linear import LinearSchedule
from unnoise.process.variance_exploding import VarianceExplodingSchedule
from unnoise.recipes import paths as module
from unnoise.recipes.paths import flow_and_sde
from unnoise.registry import Choice

SPIRAL = SpiralDataset().load()
CODEC = IdentityCodec((0.3, -0.2), (2.0, 0.5))


def exact_model(schedule):
    blueprint = Blueprint(SPIRAL.spec, CODEC, schedule, "edm", 1.0, False, Choice("mlp", MLPConfig(width=8, depth=1)))
    return Model(blueprint, DatasetOracle(CODEC.encode(SPIRAL.x.double()), schedule))


@pytest.fixture
def walked(monkeypatch):
    """What was handed to `paths`."""
    calls = []
    monkeypatch.setattr(module, "paths", lambda ways, *args, **rest: calls.append(ways) or Image.new("RGB", (9, 9)))
    return calls


@pytest.mark.parametrize("schedule", [VarianceExplodingSchedule(0.01, 20.0), LinearSchedule()], ids=str)
def test_both_ways_have_the_same_starts_end_on_the_data_and_differ_in_roughness(walked, schedule):
    flow_and_sde(exact_model(schedule), SPIRAL, n=6, steps=120)
    flow, sde = walked
    assert flow.shape == sde.shape == (121, 6, 2)
    torch.testing.assert_close(flow[0], sde[0])
    for ends in (flow[-1], sde[-1]):
        assert float(torch.cdist(ends, SPIRAL.x.double()).amin(1).max()) < 0.05
    # Everywhere at the size of the data, even where the noise is twenty times that.
    assert float(CODEC.encode(flow.flatten(0, 1)).std()) < 1.5
    # A rough way is much longer than from its start to its end.
    lengths = [float(way.diff(dim=0).norm(dim=2).sum()) for way in walked]
    assert lengths[1] > 5 * lengths[0]


def test_the_picture_has_both_side_by_side_and_is_the_same_again():
    model = exact_model(LinearSchedule())
    first, again = (flow_and_sde(model, SPIRAL, n=2, steps=10, size=120) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.width > 240
    assert not np.array_equal(
        np.asarray(first), np.asarray(flow_and_sde(model, SPIRAL, n=2, steps=10, size=120, seed=1))
    )
    assert flow_and_sde(model, n=2, steps=10, size=120).height == first.height


def test_paths_need_points_in_the_plane():
    unet = Choice("unet", UNetConfig(width=8, multipliers=(1,), blocks=1, attention=()))
    blueprint = Blueprint(DigitsDataset().load().spec, IdentityCodec.pixels(), LinearSchedule(), "v", 0.6, False, unet)
    with pytest.raises(
        DataError, match=r"need a model of points in the plane, this one makes image of shape \(1, 8, 8\)"
    ):
        flow_and_sde(Model(blueprint, blueprint.build()))


def test_the_command_draws_a_model_of_a_folder(tmp_path):
    model = exact_model(LinearSchedule())
    Model(model.blueprint, model.blueprint.build()).save(tmp_path / "model")
    out = tmp_path / "paths.png"
    arguments = ["paths", str(tmp_path / "model"), "--data", "spiral", "-n", "2", "--steps", "20", "-o", str(out)]
    done = CliRunner().invoke(draw_app, arguments)
    assert done.exit_code == 0, done.output
    with Image.open(out) as picture:
        assert picture.width > 600
