"""Small models on disk, and engines that run them."""

import pytest

from unnoise.engine.engine import Engine
from unnoise.engine.results import Results
from unnoise.engine.settings import EngineSettings
from unnoise.engine.shelf import Shelf

from ..conftest import make_model


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
