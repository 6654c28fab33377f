"""Small models on disk, and engines that run them."""

import pytest
import torch

from unnoise.blueprint import Blueprint
from unnoise.codecs.identity import IdentityCodec
from unnoise.data.base import Spec
from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.settings import EngineSettings
from unnoise.engine.shelf import Shelf
from unnoise.model import Model
from unnoise.nn.base import networks
from unnoise.process.base import schedules
from unnoise.sampling import SamplingSettings


def make_model(kind="points", labels=("a", "b"), seed=0, variance=False, self_conditioning=False, process="cosine"):
    """A model whose weights all matter, and are those of nothing that was learned."""
    image = kind == "image"
    spec = Spec(kind, (1, 6, 6) if image else (2,), labels)
    network = {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1} if image else {"name": "mlp", "width": 8}
    codec = IdentityCodec.pixels() if image else IdentityCodec((0.5, -1.0), (2.0, 0.3))
    blueprint = Blueprint(
        spec, codec, schedules.build(process), "v", 0.7, variance, networks.build(network), self_conditioning
    )
    model = Model(blueprint, blueprint.build(seed), SamplingSettings(steps=4), {"steps": 12})
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for p in model.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The folders of a model of points, and of one of images."""
    root = tmp_path_factory.mktemp("models")
    return {kind: str(make_model(kind).save(root / kind)) for kind in ("points", "image")}


@pytest.fixture
def start(folders, tmp_path):
    """Starts an engine on a folder of results; all are closed in the end."""
    engines = []

    def begin(models=folders, results="results", memory=2**30, **settings):
        engine = Engine(Shelf(models, memory=memory), Results(tmp_path / results), EngineSettings(**settings))
        engines.append(engine)
        return engine

    yield begin
    for engine in engines:
        engine.close(grace=0)
